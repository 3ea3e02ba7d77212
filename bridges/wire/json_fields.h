#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runnel/v1/inference.pb.h"

// Reads values of untrusted JSON and checks their types and ranges. Errors are InvalidArgument (reason INVALID_FIELD)
// that name `field`, the path of the value in the body. Pure functions.
namespace runnel::bridge {

// The value of `key`; null if it is absent or null.
const nlohmann::json* FindField(const nlohmann::json& object, const std::string& key);

// Whether `value` is false, zero, empty or null, and so requests nothing.
bool IsNothing(const nlohmann::json& value);

// Rejects (UNSUPPORTED_PARAMETER) the first key of `object` that is neither among `known` nor null. `path` is the path
// of `object` in the body.
absl::Status CheckKeys(const std::string& path, const nlohmann::json& object,
                       std::initializer_list<std::string_view> known);

// InvalidArgument (reason UNSUPPORTED_PARAMETER) for `field`, which is well-formed but not supported.
absl::Status Unsupported(std::string_view field, std::string_view message);

// A key of untrusted JSON, for an error message: its first 64 bytes, with `?` for those that are not printable.
std::string ShownKey(std::string_view key);

// A string of `least` to `most` bytes, into `out`.
absl::Status ReadText(const std::string& field, const nlohmann::json& value, size_t least, size_t most,
                      std::string* out);

// A whole number without a sign or a fraction.
absl::StatusOr<uint64_t> ReadWhole(const std::string& field, const nlohmann::json& value, uint64_t least,
                                   uint64_t most);

absl::StatusOr<float> ReadNumber(const std::string& field, const nlohmann::json& value, double least, double most);

// true or false, into `out`.
absl::Status ReadFlag(const std::string& field, const nlohmann::json& value, bool* out);

// A whole number of at least 1. One that does not fit becomes the largest that does, so that the service reports its
// limit.
absl::Status ReadMaxTokens(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// A string of 1 to 128 bytes, or an array of at most 4.
absl::Status ReadStop(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// An array of 1 to `most` objects: calls `read` for each, with its path in the body, until one fails.
absl::Status ReadEach(const std::string& field, const nlohmann::json& value, size_t most,
                      absl::FunctionRef<absl::Status(const std::string& path, const nlohmann::json& object)> read);

// An object of at most 16 strings of at most 512 bytes, with keys of 1 to 64.
absl::Status ReadMetadata(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// A number from `least` to `most`, for a setter of Sampling.
template <auto kSetter>
absl::Status ReadSampling(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request,
                          double least, double most) {
  const absl::StatusOr<float> number = ReadNumber(field, value, least, most);
  if (number.ok()) (request->mutable_sampling()->*kSetter)(*number);
  return number.status();
}

}  // namespace runnel::bridge
