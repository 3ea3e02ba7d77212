#pragma once

#include <string>
#include <string_view>

#include "tests/bench/load/codec.h"

namespace runnel::bench {

// text/event-stream over HTTP/1.1, chunked or not, with Runnel's events.
class SseCodec : public Codec {
 public:
  // `opened_by_head`: the response has no `started`, so its head opens the stream.
  SseCodec(std::string opening, bool opened_by_head) : opening_(std::move(opening)), opened_by_head_(opened_by_head) {}

  std::string Opening() override { return std::move(opening_); }
  std::string OnBytes(std::string* in, std::string* out, Sink* sink) override;

 protected:
  // Reads the data of one line. Returns an empty string, or what is wrong with it.
  virtual std::string OnData(std::string_view data, Sink* sink);

  Event event_;

 private:
  bool Unchunk(std::string* in);
  std::string ParseLines(std::string* text, Sink* sink);

  std::string opening_;
  const bool opened_by_head_;
  bool head_done_ = false;
  bool chunked_ = false;
  std::string text_;
};

}  // namespace runnel::bench
