// Compiled by ctest unchanged, and with each of the mistakes that clang must find. See CMakeLists.txt.
#include "services/base/mutex.h"

namespace runnel {

class Guarded {
 public:
  int Get() EXCLUDES(mu_) {
#ifndef READ_WITHOUT_LOCK
    base::MutexLock lock(&mu_);
#endif
    return value_;
  }

  int GetTwice() EXCLUDES(mu_) {
#ifndef CALL_WITHOUT_LOCK
    base::MutexLock lock(&mu_);
#endif
#ifdef LOCK_TWICE
    return Get();
#else
    return 2 * GetLocked();
#endif
  }

 private:
  int GetLocked() REQUIRES(mu_) { return value_; }

  base::Mutex mu_;
  int value_ GUARDED_BY(mu_) = 1;
};

int Use() {
  Guarded guarded;
  return guarded.Get() + guarded.GetTwice();
}

}  // namespace runnel
