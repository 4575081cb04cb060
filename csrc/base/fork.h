// Decides which objects a forked child may still use. fork() copies the memory as it is at that
// moment, but only the calling thread: locks that other threads held stay locked in the child, and
// work they had begun is never finished there.
#pragma once

#include <cstdint>
#include <mutex>

namespace gemtp {

/// Number of forks between the process that was started and this one.
uint32_t fork_count();

/// A mutex for sections so short that a fork can wait for them: a child never finds it locked, nor
/// the data it guards half changed. Such a section must not call Python or a caller's function, or
/// wait for anything.
std::mutex& fork_mutex();

/// Watches an object that threads use for longer than a fork could wait. The object is lost to a
/// child that is forked while it is in use: its locks and data must not be touched there.
class ForkWatch {
 public:
  ForkWatch();
  ~ForkWatch();
  ForkWatch(const ForkWatch&) = delete;
  ForkWatch& operator=(const ForkWatch&) = delete;

  /// Begins a use. Returns false if the object is lost; then leave() must not be called. Calls may
  /// nest.
  bool enter() noexcept;
  void leave() noexcept;
  bool lost() const noexcept;

  /// A use that lasts as long as this object. Converts to false if the watched object is lost.
  class Use {
   public:
    explicit Use(ForkWatch& watch) noexcept : watch_(watch), entered_(watch.enter()) {}
    ~Use() {
      if (entered_) watch_.leave();
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    explicit operator bool() const { return entered_; }

   private:
    ForkWatch& watch_;
    const bool entered_;
  };

 private:
  friend struct Forks;
  ForkWatch *next_ = nullptr, *before_ = nullptr;  // list of all watches of the process
  int uses_ = 0;
  bool lost_ = false;
};

/// Throws the Error for a use of an object that is lost.
[[noreturn]] void throw_lost_by_fork();

}  // namespace gemtp
