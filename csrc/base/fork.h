// What a forked child may go on with. fork() copies the memory as it is at that moment, but of the
// threads only the one that called it: what another thread had locked, or was half-way through, in
// the child nobody will unlock or bring to its end.
#pragma once

#include <cstdint>
#include <mutex>

namespace gemtp {

/// How many forks lie between this process and the one that was started.
uint32_t fork_count();

/// For sections so short that a fork can wait for them: a child never finds it locked, nor what it
/// guards half changed. No section may call Python or a caller's function, or wait for anything.
std::mutex& fork_mutex();

/// Watches something that threads are at work with for longer than a fork could wait. It is lost to
/// a child that was forked meanwhile: its locks and data must not be touched there.
class ForkWatch {
 public:
  ForkWatch();
  ~ForkWatch();
  ForkWatch(const ForkWatch&) = delete;
  ForkWatch& operator=(const ForkWatch&) = delete;

  /// False: it is lost, and leave() must not be called. Calls may nest.
  bool enter() noexcept;
  void leave() noexcept;
  bool lost() const noexcept;

  /// From enter() to leave().
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
  ForkWatch *next_ = nullptr, *before_ = nullptr;  // of all in the process
  int uses_ = 0;
  bool lost_ = false;
};

/// The Error of whoever needs what is lost.
[[noreturn]] void throw_lost_by_fork();

}  // namespace gemtp
