#include "machine/clock/timer_service.hpp"

#include <pthread.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <utility>

namespace vm_platform {

std::int64_t monotonic_ns() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

Timer::Timer(TimerService& service, std::function<void()> callback)
    : service_(service), callback_(std::move(callback)) {
  service_.add(*this);
}

Timer::~Timer() { service_.remove(*this); }

void Timer::arm(std::int64_t deadline_ns) {
  // The service stores `queued_` and then loads `deadline_`, we the other way round: one of the two sees the other.
  deadline_.store(deadline_ns);
  if (deadline_ns < queued_.load()) service_.queue(*this);
}

void Timer::cancel() noexcept { deadline_.store(kNever); }

Result<std::unique_ptr<TimerService>> TimerService::create() {
  const int descriptor = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (descriptor < 0) return fail(VmError::from_os(errno, "timerfd_create", "the machine's timers"));
  std::unique_ptr<TimerService> service(new TimerService(descriptor));
  // Signals of the process are for threads that expect them.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  try {
    service->thread_ = std::thread(&TimerService::run, service.get());
  } catch (const std::system_error& failure) {
    error = failure.code().value();
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return fail(VmError::from_os(error, "start thread", "the machine's timers"));
  return service;
}

TimerService::~TimerService() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    program(1);
  }
  if (thread_.joinable()) thread_.join();
  ::close(descriptor_);
}

void TimerService::add(Timer& timer) {
  const std::scoped_lock lock(mutex_);
  timers_.push_back(&timer);
}

void TimerService::remove(Timer& timer) {
  std::unique_lock lock(mutex_);
  std::erase(timers_, &timer);
  idle_.wait(lock, [&] { return running_ != &timer; });
}

void TimerService::queue(Timer& timer) {
  const std::scoped_lock lock(mutex_);
  const std::int64_t deadline = timer.deadline_.load();
  if (deadline >= timer.queued_.load()) return;
  timer.queued_.store(deadline);
  if (deadline < programmed_ && !firing_) program(deadline);
}

void TimerService::program(std::int64_t deadline_ns) noexcept {
  programmed_ = deadline_ns;
  itimerspec when{};
  if (deadline_ns != Timer::kNever) {
    const std::int64_t at = std::max<std::int64_t>(deadline_ns, 1);  // 0 would turn the timer off
    when.it_value = {.tv_sec = at / 1'000'000'000, .tv_nsec = at % 1'000'000'000};
  }
  ::timerfd_settime(descriptor_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void TimerService::run() {
  ::pthread_setname_np(::pthread_self(), "vmp-timer");
  while (true) {
    std::uint64_t expirations = 0;
    [[maybe_unused]] const ssize_t count = ::read(descriptor_, &expirations, sizeof expirations);
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    firing_ = true;  // what is queued from now on is programmed below, once
    const std::int64_t now = monotonic_ns();
    while (fire_one(lock, now)) {
    }
    firing_ = false;
    std::int64_t next = Timer::kNever;
    for (const Timer* timer : timers_) next = std::min(next, timer->queued_.load());
    program(next);
  }
}

bool TimerService::fire_one(std::unique_lock<std::mutex>& lock, std::int64_t now) {
  const auto due = std::ranges::find_if(timers_, [now](const Timer* timer) { return timer->queued_.load() <= now; });
  if (due == timers_.end()) return false;
  Timer& timer = **due;
  timer.queued_.store(Timer::kNever);
  std::int64_t deadline = timer.deadline_.load();
  while (deadline <= now) {
    if (!timer.deadline_.compare_exchange_weak(deadline, Timer::kNever)) continue;
    running_ = &timer;
    lock.unlock();
    timer.callback_();
    lock.lock();
    running_ = nullptr;
    idle_.notify_all();
    return true;
  }
  timer.queued_.store(std::min(timer.queued_.load(), deadline));
  return true;
}

}  // namespace vm_platform
