#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/bench/load/event.h"
#include "tests/bench/load/load_options.h"

namespace runnel::bench {

// One connection's protocol, from bytes to events and back. Knows no sockets.
class Codec {
 public:
  // Who is told what the bytes say.
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
  // What to send once connected.
  virtual std::string Opening() = 0;
  // Takes from the front of `in` what is whole, appends to `out` what is to be sent. Empty, or what is wrong.
  virtual std::string OnBytes(std::string* in, std::string* out, Sink* sink) = 0;
};

// Of stream `index`. `options` must outlive it.
std::unique_ptr<Codec> MakeCodec(const LoadOptions* options, int index);

}  // namespace runnel::bench
