#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace runnel::inference {

// One token to be decoded, at its place in a sequence.
struct LlamaRow {
  int32_t token = 0;
  uint32_t position = 0;
  uint32_t sequence = 0;
  bool logits = false;  // what comes after it is wanted
};

enum class LlamaDecodeResult {
  kOk,
  kNoRoom,  // not enough free cells; nothing was changed
  kFailed,  // what the sequences hold is not known any more
};

// What the scheduler needs of a model: a memory of `cells()` tokens for `sequences()` numbered sequences, and the
// logits that come of it. LlamaContext is the real one. Not thread-safe.
class LlamaDecoder {
 public:
  virtual ~LlamaDecoder() = default;

  virtual uint32_t sequences() const = 0;
  virtual uint32_t cells() const = 0;
  virtual uint32_t max_rows() const = 0;  // of one Decode; at least sequences()
  // False: CopyPrefix and Truncate to anything but nothing are not possible with this model.
  virtual bool shares_prefixes() const = 0;

  // Adds the rows to their sequences, whose positions must follow those they hold.
  virtual LlamaDecodeResult Decode(std::span<const LlamaRow> rows) = 0;
  // Of a row of the last Decode that wanted them. Valid until the next Decode.
  virtual std::span<const float> Logits(size_t row) = 0;

  // The sequence holds its first `length` tokens only.
  virtual void Truncate(uint32_t sequence, uint32_t length) = 0;
  // The empty sequence `to` holds the first `length` tokens of `from`.
  virtual void CopyPrefix(uint32_t from, uint32_t to, uint32_t length) = 0;
  virtual void Clear() = 0;

  // The token ends an answer.
  virtual bool IsEnd(int32_t token) const = 0;
  // The token's bytes, which need not be whole characters. None for what is not text.
  virtual std::string Piece(int32_t token) const = 0;
};

}  // namespace runnel::inference
