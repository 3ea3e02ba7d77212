// What a Redis server sends, in pieces of any size, and what is read from its replies; and the URL of a server.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/inference/journal/redis/redis_url.h"
#include "services/inference/journal/redis/reply_reader.h"
#include "services/inference/journal/redis/server_info.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::inference::ParseRedisUrl;
using runnel::inference::RedisReply;
using runnel::inference::RedisReplyReader;
using runnel::inference::RedisServerInfo;

// Everything that can be read from a reply, as text.
std::string Describe(RedisReply reply, size_t* elements) {
  std::string text = std::to_string(static_cast<int>(reply.type())) + ":" + std::to_string(reply.integer()) + ":" +
                     std::string(reply.text()) + ":" + std::string(reply.error_code());
  FUZZ_CHECK(reply[reply.size()].is_nil());
  *elements += reply.size();
  for (size_t i = 0; i < reply.size(); ++i) text += "," + Describe(reply[i], elements);
  return text;
}

void CheckServer(RedisReply reply) {
  RedisServerInfo info;
  const auto problem = ReadServerInfo(reply, &info);
  FUZZ_CHECK(problem.has_value() || !info.version.empty());
  for (const std::string& value : {info.version, info.run_id, info.maxmemory_policy}) {
    FUZZ_CHECK(value.size() <= 128 &&
               std::all_of(value.begin(), value.end(), [](char c) { return c > ' ' && c < 127; }));
  }
  CheckAuth(reply);
  CheckSelect(reply, 1);
  FUZZ_CHECK(!ProblemOf(reply).has_value() || reply.is_error());
}

std::string ReadAll(std::string_view bytes, size_t piece, const RedisReplyReader::Limits& limits) {
  RedisReplyReader reader(limits);
  std::string all;
  while (!bytes.empty()) {
    reader.Feed(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    RedisReplyReader::Next next;
    while ((next = reader.Read()) == RedisReplyReader::Next::kReply) {
      size_t elements = 0;
      const std::string text = Describe(reader.reply(), &elements);
      FUZZ_CHECK(elements <= limits.max_elements);
      CheckServer(reader.reply());
      all += text + ";";
    }
    if (next == RedisReplyReader::Next::kError) {
      FUZZ_CHECK(!reader.error().empty());
      return all + "error";
    }
  }
  return all;
}

void CheckUrl(std::string_view text) {
  const auto url = ParseRedisUrl(text);
  if (!url.ok()) return;
  FUZZ_CHECK(text.find('@') == std::string_view::npos);
  const auto again = ParseRedisUrl(url->ToString());
  FUZZ_CHECK(again.ok() && again->ToString() == url->ToString());
  FUZZ_CHECK(!url->servers.empty() && (url->servers.size() == 1 || !url->master_name.empty()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CheckUrl(bytes);
  if (bytes.empty()) return 0;
  // No limit is reached, so the pieces make no difference.
  const RedisReplyReader::Limits wide = {.max_bytes = 1 << 20, .max_elements = 1 << 12};
  const std::string whole = ReadAll(bytes, bytes.size(), wide);
  FUZZ_CHECK(ReadAll(bytes, 1 + static_cast<uint8_t>(bytes[0]) % 32, wide) == whole);
  ReadAll(bytes, 7, {.max_bytes = 16, .max_elements = 4});
  return 0;
}
