#pragma once

namespace runnel::base {

// Opens /dev/null in place of standard input, output and error if the process was started without them. Otherwise the
// next descriptors to be opened, for example sockets, would get their numbers, and log lines would be written to them.
// Call it first in main. In a program that calls it, it also runs before the initializers of shared libraries, because
// gRPC's initializers open descriptors.
void OpenStandardStreams();

}  // namespace runnel::base
