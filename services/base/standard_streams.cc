#include "services/base/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace runnel::base {
namespace {

void RunBeforeInitializers(int, char**, char**) { OpenStandardStreams(); }

// The only functions of a program that run before the initializers of its shared libraries.
[[gnu::section(".preinit_array"), gnu::used]] void (*const kRunBeforeInitializers)(int, char**,
                                                                                   char**) = &RunBeforeInitializers;

}  // namespace

void OpenStandardStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    // open returns the lowest free number, which is `fd`, because the lower ones are open.
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd) std::abort();
  }
}

}  // namespace runnel::base
