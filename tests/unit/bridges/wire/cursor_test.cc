#include "bridges/wire/cursor.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/testing/fake_inference_service.h"

namespace runnel::bridge {
namespace {

using testing::FakeId;

TEST(Cursor, ReadsIdAndSeq) {
  const auto cursor = ParseCursor(FakeId('a') + ":17");
  ASSERT_TRUE(cursor.ok()) << cursor.status();
  EXPECT_EQ(cursor->generation_id, FakeId('a'));
  EXPECT_EQ(cursor->position, LogPosition(17));
}

TEST(Cursor, ReadsABareSeq) {
  const auto cursor = ParseCursor("9223372036854775807");
  ASSERT_TRUE(cursor.ok()) << cursor.status();
  EXPECT_EQ(cursor->generation_id, "");
  EXPECT_EQ(cursor->position, LogPosition(9223372036854775807u));
  EXPECT_EQ(ParseSeq("0").value(), 0u);
}

TEST(Cursor, ReadsAnEpoch) {
  EXPECT_EQ(ParseCursor(FakeId('a') + ":17.65537")->position, LogPosition(17, 65537));
  EXPECT_EQ(ParseCursor("17.1")->position, LogPosition(17, 1));
  EXPECT_EQ(ParsePosition("9223372036854775807.4294967295").value(), LogPosition(9223372036854775807u, 4294967295u));
  // The position behind a gap whose text was too large for it.
  EXPECT_EQ(ParsePosition("0.65537").value(), LogPosition(0, 65537));
}

TEST(Cursor, RejectsMalformedTextInsteadOfReadingZero) {
  const std::string id = FakeId('b');
  const std::vector<std::string> hostile = {"",
                                            " ",
                                            ":",
                                            "0x10",
                                            "-1",
                                            "+1",
                                            "1 ",
                                            " 1",
                                            "1.0",
                                            "1e3",
                                            "01",
                                            "00",
                                            "١",
                                            "9223372036854775808",
                                            "18446744073709551616",
                                            "99999999999999999999999999",
                                            id,
                                            id + ":",
                                            id + ": 1",
                                            id + ":-1",
                                            id + ":1:2",
                                            id + ":1\n",
                                            id + ":1\r\nx: y",
                                            ":17",
                                            "gen_:17",
                                            "gen_" + std::string(25, 'a') + ":1",
                                            "gen_" + std::string(27, 'a') + ":1",
                                            "gen_" + std::string(26, 'A') + ":1",
                                            "gen_" + std::string(26, '1') + ":1",
                                            "GEN_" + std::string(26, 'a') + ":1",
                                            "NaN",
                                            "null",
                                            ".",
                                            "17.",
                                            ".1",
                                            "17.0",
                                            "17.00",
                                            "17.01",
                                            "17.-1",
                                            "17.+1",
                                            "17. 1",
                                            "17 .1",
                                            "17.1 ",
                                            "17.1.1",
                                            "17..1",
                                            "17.1e3",
                                            "17.0x1",
                                            "17,1",
                                            "17.4294967296",
                                            "17.99999999999",
                                            "17.18446744073709551617",
                                            "17." + std::string(100000, '9'),
                                            id + ".1",
                                            id + ":.1",
                                            id + ":17.",
                                            id + ":17.1:2",
                                            id + ":17.1.2",
                                            id + ".1:17",
                                            "17.1:" + id,
                                            std::string("1\0", 2),
                                            std::string(100000, '9')};
  for (const std::string& text : hostile) {
    const auto cursor = ParseCursor(text);
    EXPECT_EQ(cursor.status().code(), absl::StatusCode::kInvalidArgument) << "'" << text.substr(0, 64) << "'";
    EXPECT_EQ(base::DetailOf(cursor.status()).reason, "INVALID_CURSOR");
  }
}

TEST(Cursor, MustBelongToTheGeneration) {
  EXPECT_EQ(ParseCursorOf(FakeId('a'), FakeId('a') + ":3.7").value(), LogPosition(3, 7));
  EXPECT_EQ(ParseCursorOf(FakeId('a'), "3").value(), LogPosition(3));
  EXPECT_FALSE(ParseCursorOf(FakeId('a'), FakeId('b') + ":3").ok());
  EXPECT_FALSE(ParseCursorOf(FakeId('a'), FakeId('b') + ":3.7").ok());
}

TEST(Cursor, ChecksTheFormOfAnId) {
  EXPECT_TRUE(IsGenerationId("gen_abcdefghijklmnopqrstuv2345"));
  for (const char* text : {"", "gen_", "gen_abcdefghijklmnopqrstuv234", "gen_abcdefghijklmnopqrstuv23456",
                           "gen_abcdefghijklmnopqrstuv2341", "gen_abcdefghijklmnopqrstuv234\n",
                           "xen_abcdefghijklmnopqrstuv2345", "gen_Abcdefghijklmnopqrstuv2345"}) {
    EXPECT_FALSE(IsGenerationId(text)) << text;
  }
}

}  // namespace
}  // namespace runnel::bridge
