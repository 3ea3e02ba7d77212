#include "tests/testing/failing_new.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace runnel::testing {
namespace {

std::atomic<size_t> too_large = SIZE_MAX;

}  // namespace

FailingNew::FailingNew(size_t bytes) { too_large = bytes; }
FailingNew::~FailingNew() { too_large = SIZE_MAX; }

static void* Allocate(size_t bytes) {
  if (bytes >= too_large.load(std::memory_order_relaxed)) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace runnel::testing

// The other forms of new and delete call these. The nothrow form is defined here too, because AddressSanitizer replaces
// each form separately: memory from its nothrow form would be released by the delete below, another allocator.
void* operator new(size_t bytes) { return runnel::testing::Allocate(bytes); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes == 0 ? 1 : bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
