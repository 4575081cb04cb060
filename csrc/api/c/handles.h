// Handles of the C ABI: numbers that look like pointers. A closed handle is always recognized, and
// closing an object while another call uses it keeps the object alive for that call.
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

/// Returns a new handle; no handle is used twice, for any kind of object.
inline uintptr_t next_handle() {
  static std::atomic<uintptr_t> next{0};
  return next += 16;
}

/// The open objects of one kind. Handle is an incomplete type.
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

  /// Throws Error{kArgument} if the handle is not open.
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

  /// Returns null if the handle is not open.
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
  std::unordered_map<uintptr_t, std::shared_ptr<Object>> open_;  // guarded by fork_mutex()
};

class Engine;

/// The open models. Never destroyed, because other threads may be at work when the process ends.
Handles<gemtp_model, Engine>& models();

}  // namespace gemtp
