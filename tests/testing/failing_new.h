#pragma once

#include <cstddef>

namespace runnel::testing {

// While it lives, operator new throws std::bad_alloc for every request of `bytes` or more, on all threads of the test
// program. One at a time. A program that uses it has failing_new.cc among its sources.
class FailingNew {
 public:
  explicit FailingNew(size_t bytes);
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;
};

}  // namespace runnel::testing
