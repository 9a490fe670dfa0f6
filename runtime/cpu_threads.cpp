#include "runtime/cpu_threads.hpp"

#include <pthread.h>

#include <csignal>
#include <string>
#include <utility>

namespace vm_platform::runtime {
namespace {

/// Signals for the program, which its own threads handle; a vCPU's thread must not be the one the kernel picks.
void block_program_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH, SIGPIPE, SIGCHLD, SIGALRM})
    ::sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

}  // namespace

CpuThreads::CpuThreads(std::vector<std::unique_ptr<Vcpu>> vcpus, ExitHandler on_exit) : on_exit_(std::move(on_exit)) {
  cpus_.reserve(vcpus.size());
  for (auto& vcpu : vcpus) cpus_.push_back({.vcpu = std::move(vcpu)});
  try {
    for (unsigned i = 0; i < count(); ++i) cpus_[i].thread = std::thread([this, i] { body(i); });
  } catch (...) {  // the host has no thread left; those that run have to end before they are destroyed
    end();
    throw;
  }
}

CpuThreads::~CpuThreads() { end(); }

void CpuThreads::body(unsigned index) {
  block_program_signals();
  ::pthread_setname_np(::pthread_self(), ("vcpu" + std::to_string(index)).c_str());
  Cpu& cpu = cpus_[index];
  std::unique_lock lock(mutex_);
  while (true) {
    if (ending_) break;
    if (!wanted_ || held_) {
      ++parked_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return ending_ || (wanted_ && !held_); });
      --parked_;
      continue;
    }
    const std::optional<CpuState> state = std::exchange(cpu.next_state, std::nullopt);
    lock.unlock();
    VcpuExit exit;
    if (state) {
      if (auto set = cpu.vcpu->set_state(*state); !set)
        exit = {VcpuExit::Kind::Failed, set.error().message()};
      else
        exit = cpu.vcpu->run();
    } else {
      exit = cpu.vcpu->run();
    }
    if (exit.kind != VcpuExit::Kind::Kicked) {
      hold();
      on_exit_(index, exit, cpu.vcpu->state());
    }
    lock.lock();
  }
  ++parked_;
  changed_.notify_all();
}

void CpuThreads::kick_all() noexcept {
  for (Cpu& cpu : cpus_) cpu.vcpu->kick();
}

void CpuThreads::run() {
  const std::lock_guard lock(mutex_);
  wanted_ = true;
  changed_.notify_all();
}

void CpuThreads::park() {
  std::unique_lock lock(mutex_);
  wanted_ = false;
  kick_all();
  changed_.wait(lock, [this] { return parked_ == count(); });
}

void CpuThreads::hold() noexcept {
  const std::lock_guard lock(mutex_);
  held_ = true;
  kick_all();
}

void CpuThreads::release() noexcept {
  const std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

void CpuThreads::end() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    kick_all();
    changed_.notify_all();
  }
  for (Cpu& cpu : cpus_) {
    if (cpu.thread.joinable()) cpu.thread.join();
  }
}

void CpuThreads::set_state(unsigned cpu, CpuState state) {
  const std::lock_guard lock(mutex_);
  cpus_[cpu].next_state = std::move(state);
}

}  // namespace vm_platform::runtime
