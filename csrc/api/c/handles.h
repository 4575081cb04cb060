// Handles of the C ABI: numbers that look like pointers. A closed one is known as such for ever,
// and closing while another call is at work leaves that call what it works on.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "base/fork.h"
#include "gemtp.h"

namespace gemtp {

/// Never used twice, for whatever kind of object.
inline uintptr_t next_handle() {
  static std::atomic<uintptr_t> next{0};
  return next += 16;
}

/// The objects of one kind that are open. Handle is a type that exists in name only.
template <class Handle, class Object>
class Handles {
 public:
  explicit Handles(const char* kind) : kind_(kind) {}

  Handle* add(std::shared_ptr<Object> object) {
    const uintptr_t handle = next_handle();
    const std::lock_guard<std::mutex> lock(fork_mutex());
    open_.emplace(handle, std::move(object));
    return reinterpret_cast<Handle*>(handle);
  }

  /// Error{kArgument} for what is not open.
  std::shared_ptr<Object> get(const Handle* handle) {
    {
      const std::lock_guard<std::mutex> lock(fork_mutex());
      const auto found = open_.find(reinterpret_cast<uintptr_t>(handle));
      if (found != open_.end()) return found->second;
    }
    throw Error(ErrorKind::kArgument,
                std::string("the ") + kind_ +
                    (handle ? " is not open: it was closed, or is none" : " is NULL"));
  }

  /// Null for what is not open.
  std::shared_ptr<Object> remove(const Handle* handle) {
    const std::lock_guard<std::mutex> lock(fork_mutex());
    const auto found = open_.find(reinterpret_cast<uintptr_t>(handle));
    if (found == open_.end()) return nullptr;
    std::shared_ptr<Object> object = std::move(found->second);
    open_.erase(found);
    return object;
  }

 private:
  const char* kind_;
  std::unordered_map<uintptr_t, std::shared_ptr<Object>> open_;  // under the fork_mutex()
};

class Engine;

/// Those of gemtp_model. Never destroyed: other threads may be at work when the process ends.
Handles<gemtp_model, Engine>& models();

}  // namespace gemtp
