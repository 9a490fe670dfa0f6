// SimpleRuntimeController: one thread that takes commands and events in order and decides what follows from them.
#include <condition_variable>
#include <deque>
#include <future>
#include <thread>
#include <utility>
#include <variant>
#include <vm_platform/runtime.hpp>

namespace vm_platform {

using Clock = std::chrono::steady_clock;

struct SimpleRuntimeController::Impl {
  struct Order {
    RuntimeCommand command;
    std::promise<Result<void>> done;
  };

  explicit Impl(std::shared_ptr<Runtime> guest) : runtime(std::move(guest)) {
    runtime->set_event_handler([this](const RuntimeEvent& event) { post(event); });
    thread = std::thread([this] { body(); });
  }
  ~Impl() {
    runtime->set_event_handler({});
    {
      const std::lock_guard lock(mutex);
      quit = true;
      changed.notify_all();
    }
    thread.join();
    static_cast<void>(runtime->stop());
  }

  template <typename Item>
  void post(Item item) {
    const std::lock_guard lock(mutex);
    queue.emplace_back(std::move(item));
    changed.notify_all();
  }

  void body();
  void handle(const RuntimeEvent& event);
  Result<void> carry_out(RuntimeCommand command);
  void guest_wants_reset(const RuntimeEvent& event);
  void tell(const RuntimeEvent& event);
  void finish(End how, RuntimeState state);

  std::shared_ptr<Runtime> runtime;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::variant<RuntimeEvent, Order>> queue;
  bool quit = false;
  std::optional<End> end;

  std::mutex listener_mutex;  // held while listeners are called
  std::map<std::uint64_t, Listener> listeners;
  std::uint64_t next_listener = 1;

  // The thread's own.
  std::deque<Clock::time_point> reset_times;
  std::optional<std::pair<End, Clock::time_point>> last_words;  // a panicked guest, and until when it may speak
  std::thread thread;
};

void SimpleRuntimeController::Impl::body() {
  std::unique_lock lock(mutex);
  while (true) {
    const auto something = [this] { return quit || !queue.empty(); };
    if (last_words) {
      // Whatever still waits: a full queue must not buy a panicked guest more time.
      if (!changed.wait_until(lock, last_words->second, something) || Clock::now() >= last_words->second) {
        lock.unlock();
        finish(std::exchange(last_words, std::nullopt)->first, RuntimeState::Stopped);
        lock.lock();
        continue;
      }
    } else {
      changed.wait(lock, something);
    }
    if (queue.empty()) return;  // quit, and everything posted before is done
    auto item = std::move(queue.front());
    queue.pop_front();
    lock.unlock();
    if (auto* event = std::get_if<RuntimeEvent>(&item)) {
      handle(*event);
    } else {
      auto& order = std::get<Order>(item);
      order.done.set_value(carry_out(order.command));
    }
    lock.lock();
  }
}

Result<void> SimpleRuntimeController::Impl::carry_out(RuntimeCommand command) {
  switch (command) {
    case RuntimeCommand::Start: return runtime->start();
    case RuntimeCommand::Pause: return runtime->pause();
    case RuntimeCommand::Resume: return runtime->resume();
    case RuntimeCommand::Stop: finish({.cause = RuntimeEvent::Kind::StateChanged}, RuntimeState::Stopped); return {};
    case RuntimeCommand::Reset: return runtime->reset();
    case RuntimeCommand::PowerButton: return runtime->press_power_button();
    case RuntimeCommand::Nmi: return runtime->inject_nmi();
  }
  return fail(ErrorCode::InvalidArgument, "execute", "command", "unknown");
}

void SimpleRuntimeController::Impl::handle(const RuntimeEvent& event) {
  tell(event);
  const End how{event.kind, event.value, event.cpu, event.text};
  const bool panicked = last_words.has_value();
  switch (event.kind) {
    case RuntimeEvent::Kind::Panic:
      // Bit 1 alone: a crash kernel takes over and does what the administrator wants done.
      if ((event.value & 1) != 0 && !panicked) last_words.emplace(how, Clock::now() + kPanicGrace);
      break;
    case RuntimeEvent::Kind::ResetRequested:
      if (!panicked) {
        guest_wants_reset(event);
        break;
      }
      [[fallthrough]];
    case RuntimeEvent::Kind::PowerOff:
    case RuntimeEvent::Kind::DebugExit:
      finish(panicked ? std::exchange(last_words, std::nullopt)->first : how, RuntimeState::Stopped);
      break;
    case RuntimeEvent::Kind::TripleFault:
    case RuntimeEvent::Kind::EngineFailed: finish(how, RuntimeState::Failed); break;
    case RuntimeEvent::Kind::StateChanged:
    case RuntimeEvent::Kind::Reset:
    case RuntimeEvent::Kind::ResetLoop: break;
  }
}

void SimpleRuntimeController::Impl::guest_wants_reset(const RuntimeEvent& event) {
  const auto now = Clock::now();
  reset_times.push_back(now);
  while (now - reset_times.front() > kResetLoopTime) reset_times.pop_front();
  if (reset_times.size() >= kResetLoopCount) {
    RuntimeEvent loop = event;
    loop.kind = RuntimeEvent::Kind::ResetLoop;
    loop.value = reset_times.size();
    tell(loop);
    finish({.cause = loop.kind, .value = loop.value}, RuntimeState::Failed);
    return;
  }
  if (auto done = runtime->reset(); !done)
    finish({.cause = RuntimeEvent::Kind::EngineFailed, .text = done.error().message()}, RuntimeState::Failed);
}

void SimpleRuntimeController::Impl::tell(const RuntimeEvent& event) {
  const std::lock_guard lock(listener_mutex);
  for (auto& [number, listener] : listeners) listener(event);
}

void SimpleRuntimeController::Impl::finish(End how, RuntimeState state) {
  last_words.reset();
  static_cast<void>(state == RuntimeState::Failed ? runtime->fail_guest() : runtime->stop());
  const std::lock_guard lock(mutex);
  if (!end) end = std::move(how);
  changed.notify_all();
}

SimpleRuntimeController::SimpleRuntimeController(std::shared_ptr<Runtime> runtime)
    : impl_(std::make_unique<Impl>(std::move(runtime))) {}
SimpleRuntimeController::~SimpleRuntimeController() = default;

Result<void> SimpleRuntimeController::execute(RuntimeCommand command) {
  Impl::Order order{command, {}};
  auto done = order.done.get_future();
  impl_->post(std::move(order));
  return done.get();
}

std::uint64_t SimpleRuntimeController::subscribe(Listener listener) {
  const std::lock_guard lock(impl_->listener_mutex);
  impl_->listeners.emplace(impl_->next_listener, std::move(listener));
  return impl_->next_listener++;
}

void SimpleRuntimeController::unsubscribe(std::uint64_t number) {
  const std::lock_guard lock(impl_->listener_mutex);
  impl_->listeners.erase(number);
}

std::optional<RuntimeController::End> SimpleRuntimeController::wait(std::chrono::nanoseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  const auto ended = [this] { return impl_->end.has_value(); };
  if (timeout == std::chrono::nanoseconds::max())
    impl_->changed.wait(lock, ended);
  else
    impl_->changed.wait_for(lock, timeout, ended);
  return impl_->end;
}

RuntimeController::End RuntimeController::wait() { return *wait(std::chrono::nanoseconds::max()); }

RuntimeState SimpleRuntimeController::state() const { return impl_->runtime->state(); }
RuntimeStats SimpleRuntimeController::stats() const { return impl_->runtime->stats(); }

}  // namespace vm_platform
