#pragma once

namespace runnel::base {

// Raises the soft limit of open descriptors to the hard limit and returns it: each connection is a descriptor.
unsigned long RaiseDescriptorLimit();

}  // namespace runnel::base
