#include "engine/soft/world.hpp"

#include "engine/soft/soft_cpu.hpp"

namespace vm_platform::soft {

thread_local const World* World::here_ = nullptr;

void World::enter() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stops_ == 0; });
  ++inside_;
  here_ = this;
}

void World::leave() {
  here_ = nullptr;
  const std::lock_guard lock(mutex_);
  --inside_;
  if (stops_ != 0) changed_.notify_all();
}

void World::safepoint() {
  std::unique_lock lock(mutex_);
  if (stops_ == 0) return;
  --inside_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return stops_ == 0; });
  ++inside_;
}

World::Lock::Lock(World& world) : world_(world) {
  if (world_.changes_.try_lock()) return;
  const bool inside = world_.inside_here();
  if (inside) world_.leave();
  world_.changes_.lock();
  if (inside) world_.enter();  // nobody else can be stopping the world: that takes the lock
}

World::Lock::~Lock() { world_.changes_.unlock(); }

World::Stop::Stop(World& world) : world_(world) {
  std::unique_lock lock(world_.mutex_);
  ++world_.stops_;
  const unsigned self = world_.inside_here() ? 1 : 0;
  if (world_.inside_ > self) {
    for (SoftCpu* cpu : world_.cpus) cpu->request_poll();
    world_.changed_.wait(lock, [&] { return world_.inside_ <= self; });
  }
}

World::Stop::~Stop() {
  {
    const std::lock_guard lock(world_.mutex_);
    --world_.stops_;
  }
  world_.changed_.notify_all();
}

}  // namespace vm_platform::soft
