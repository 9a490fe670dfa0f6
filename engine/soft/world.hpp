// Who may change what all CPUs share, and when: one lock for changes, and a way to stop every CPU.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "guest/memory_guard.hpp"

namespace vm_platform::soft {

class SoftCpu;

/// A CPU's thread is *inside* while it may run generated code or hold pointers into the code cache, and *outside* while
/// it sleeps or waits. Stopping the world means waiting until every other thread is outside, and keeping it there.
class World {
 public:
  void enter();
  void leave();
  /// Gives way if somebody is stopping the world.
  void safepoint();

  /// The lock under which the code cache is changed; a thread may take it again. While a thread that is inside waits
  /// for it, it is outside, so pointers to blocks are looked at anew after taking the lock.
  class Lock {
   public:
    explicit Lock(World& world);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    World& world_;
  };

  /// With the lock held: no other CPU runs guest code until this is destroyed.
  class Stop {
   public:
    explicit Stop(World& world);
    ~Stop();
    Stop(const Stop&) = delete;
    Stop& operator=(const Stop&) = delete;

   private:
    World& world_;
  };

  std::unique_ptr<GuestMemoryGuard> memory_guard;
  std::vector<SoftCpu*> cpus;  ///< All that exist; changes only while none runs.
  std::uint32_t slots = 0;     ///< How many slots for exits every CPU has made ready; changes with the lock held.

 private:
  /// Whether the calling thread is inside.
  [[nodiscard]] bool inside_here() const { return here_ == this; }

  static thread_local const World* here_;  // where the thread is inside
  std::recursive_mutex changes_;
  std::mutex mutex_;  // guards the two below
  std::condition_variable changed_;
  unsigned inside_ = 0;
  unsigned stops_ = 0;  // nested ones of the thread that holds the lock
};

}  // namespace vm_platform::soft
