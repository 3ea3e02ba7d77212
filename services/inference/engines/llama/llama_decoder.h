#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace runnel::inference {

// One token to decode, at its position in a sequence.
struct LlamaRow {
  int32_t token = 0;
  uint32_t position = 0;
  uint32_t sequence = 0;
  bool logits = false;  // compute the logits of the next token
};

enum class LlamaDecodeResult {
  kOk,
  kNoRoom,  // not enough free cells; nothing has changed
  kFailed,  // the contents of the sequences are unknown
};

// The scheduler's interface to a model: memory of `cells()` tokens for `sequences()` numbered sequences, and their
// logits. Implemented by LlamaContext. Not thread-safe.
class LlamaDecoder {
 public:
  virtual ~LlamaDecoder() = default;

  virtual uint32_t sequences() const = 0;
  virtual uint32_t cells() const = 0;
  virtual uint32_t max_rows() const = 0;  // per Decode; at least sequences()
  // If false, this model supports neither CopyPrefix nor Truncate to a length above 0.
  virtual bool shares_prefixes() const = 0;

  // Adds the rows to their sequences. Their positions must follow those that the sequences hold.
  virtual LlamaDecodeResult Decode(std::span<const LlamaRow> rows) = 0;
  // The logits after a row of the last Decode that asked for them. Valid until the next Decode.
  virtual std::span<const float> Logits(size_t row) = 0;

  // Keeps only the first `length` tokens of the sequence.
  virtual void Truncate(uint32_t sequence, uint32_t length) = 0;
  // Copies the first `length` tokens of `from` to `to`, which is empty.
  virtual void CopyPrefix(uint32_t from, uint32_t to, uint32_t length) = 0;
  virtual void Clear() = 0;

  // Whether the token ends an output.
  virtual bool IsEnd(int32_t token) const = 0;
  // The token's bytes, which need not be whole characters. Empty for a token without text.
  virtual std::string Piece(int32_t token) const = 0;
};

}  // namespace runnel::inference
