#include "bridges/wire/http_response.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace runnel::bridge {
namespace {

TEST(HttpResponse, SerializesAResponse) {
  HttpResponse response = ErrorResponse(InvalidRequest(404, "no such path", "not_found"));
  response.headers += "x-a: b\r\n";
  const std::string body =
      R"({"error":{"message":"no such path","type":"invalid_request_error","param":null,"code":"not_found"}})";
  const std::string head =
      "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 99\r\nx-a: b\r\n";
  EXPECT_EQ(Serialize(response), head + "\r\n" + body);
  response.head = true;
  EXPECT_EQ(Serialize(response), head + "\r\n");
  response.keep_alive = false;
  EXPECT_EQ(Serialize(response), head + "connection: close\r\n\r\n");
  HttpResponse empty;
  response = ErrorResponse(InvalidRequest(431, "x"));
  response.http_1_0 = true;
  EXPECT_NE(Serialize(response).find("HTTP/1.1 431 Request Header Fields Too Large\r\n"), std::string::npos);
  EXPECT_NE(Serialize(response).find("\r\nconnection: keep-alive\r\n\r\n"), std::string::npos);
  empty.status = 204;
  EXPECT_EQ(Serialize(empty), "HTTP/1.1 204 No Content\r\n\r\n");
}

TEST(HttpResponse, MakesRequestIds) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewRequestId());
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_EQ(ids.begin()->size(), 28u);
  EXPECT_EQ(ids.begin()->substr(0, 4), "req_");
}

}  // namespace
}  // namespace runnel::bridge
