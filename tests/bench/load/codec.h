#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/bench/load/event.h"
#include "tests/bench/load/load_options.h"

namespace runnel::bench {

// The protocol of one connection: converts bytes to events and writes requests. Uses no sockets.
class Codec {
 public:
  // Receives what the bytes contain.
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void OnOpened() = 0;
    virtual void OnEvent(Event* event) = 0;
    // The seq of the last event.
    virtual uint64_t last() const = 0;
    virtual bool ended() const = 0;
  };

  virtual ~Codec() = default;
  // The bytes to send after connecting.
  virtual std::string Opening() = 0;
  // Removes complete items from the front of `in` and appends bytes to send to `out`. Returns an empty string, or what
  // is wrong with the bytes.
  virtual std::string OnBytes(std::string* in, std::string* out, Sink* sink) = 0;
};

// Makes the codec of stream `index`. `options` must outlive it.
std::unique_ptr<Codec> MakeCodec(const LoadOptions* options, int index);

}  // namespace runnel::bench
