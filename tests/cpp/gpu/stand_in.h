// What the libraries that stand in for a GPU's driver have in common: numbers that tests set, and
// what was wrong in a call.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>

/// Returns what is the calling thread's own. The destructors of static objects can use it, too,
/// unlike the main thread's variables of the storage class thread_local.
template <class T>
T& of_thread() {
  static std::mutex mutex;
  static auto& all = *new std::map<std::thread::id, T>();
  const std::lock_guard lock(mutex);
  return all[std::this_thread::get_id()];
}

class StandIn {
 public:
  using Numbers = std::map<std::string, int64_t>;

  /// variable: of the environment, which changes some of the settings: "name=value,name=value".
  StandIn(const char* variable, Numbers settings) : settings_(std::move(settings)) {
    const char* text = std::getenv(variable);
    const std::string all = text ? text : "";
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find(',', at), all.size());
      const std::string pair = all.substr(at, end - at);
      const size_t is = pair.find('=');
      if (is == std::string::npos || !settings_.count(pair.substr(0, is))) std::abort();
      settings_[pair.substr(0, is)] = std::strtoll(pair.c_str() + is + 1, nullptr, 10);
      at = end + 1;
    }
  }
  int64_t& operator[](const char* name) { return settings_.at(name); }

  void complain(const std::string& sentence) {
    ++complaints;
    if (complaint_.empty()) complaint_ = sentence;
  }

  /// Whether an allocation fails, because a test wants it.
  bool fails_allocation() {
    ++allocations;
    int64_t& once = settings_.at("fail_allocation");
    if (once > 0 && --once == 0) return true;
    int64_t& from = settings_.at("fail_from");
    if (from > 1) return --from, false;
    return from == 1;
  }

  // The controls, as fake_cuda.h and fake_metal.h declare them.
  int set(const char* name, int64_t value) {
    const std::lock_guard lock(mutex);
    const auto at = settings_.find(name);
    if (at == settings_.end()) return 0;
    at->second = value;
    changed.notify_all();
    return 1;
  }
  const char* take_complaint() {
    const std::lock_guard lock(mutex);
    told_ = std::move(complaint_);
    complaint_.clear();
    return told_.c_str();
  }

  std::mutex mutex;
  std::condition_variable changed;
  int64_t calls = 0, allocations = 0, launches = 0, complaints = 0;
  std::mt19937_64 random{1};

 private:
  Numbers settings_;
  std::string complaint_, told_;
};
