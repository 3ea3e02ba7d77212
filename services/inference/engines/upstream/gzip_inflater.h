#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace runnel::inference {

// Decodes a gzip stream piece by piece. Holds zlib's window (32 KiB) and one buffer; the caller bounds the output by
// returning false. Not thread-safe.
class GzipInflater {
 public:
  GzipInflater();
  ~GzipInflater();

  enum class Result { kOk, kUnwanted, kCorrupt };
  // Calls `on_bytes` with decoded bytes, any number of times.
  Result Feed(std::string_view bytes, absl::FunctionRef<bool(std::string_view)> on_bytes);
  // The whole stream was decoded and its checksum is right.
  bool complete() const;

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::inference
