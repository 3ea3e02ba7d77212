#pragma once

namespace runnel::base {

// Opens /dev/null in the place of standard input, output and error if the process was started without them. Otherwise
// the next descriptors to be opened, such as sockets, would get their numbers, and what is logged would be written to
// them. Call it first in main: a program that does has it run before the initializers of shared libraries as well,
// because gRPC's open descriptors.
void OpenStandardStreams();

}  // namespace runnel::base
