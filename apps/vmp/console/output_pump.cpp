#include "apps/vmp/console/output_pump.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

namespace vm_platform::vmp {
namespace {
constexpr std::size_t kQueueLimit = 1 << 20;
constexpr int kRetryMs = 5;
// Where it cannot be opened again: what a terminal that polls writable takes without blocking, one buffer of the
// kernel's tty layer (tty_buffer.c). Of a raw one: where a newline becomes two characters, less may block.
constexpr std::size_t kTerminalPiece = 256;

/// A terminal polls writable when it has room for a few bytes, and a blocking write of more sleeps where nothing of
/// ours can wake it. The master's side of a pseudo-terminal cannot be opened again: that would make a new one.
int open_terminal_again(int descriptor) {
  unsigned number = 0;
  if (::isatty(descriptor) == 0 || ::ioctl(descriptor, TIOCGPTN, &number) == 0) return -1;
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  return ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}
}  // namespace

OutputPump::OutputPump(int descriptor, std::string name, std::function<void()> on_failure)
    : descriptor_(descriptor),
      terminal_(open_terminal_again(descriptor)),
      // A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)), so the thread can always be woken.
      piece_(terminal_ < 0 && ::isatty(descriptor) != 0 ? kTerminalPiece : PIPE_BUF),
      name_(std::move(name)),
      on_failure_(std::move(on_failure)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { body(); }) {}

OutputPump::~OutputPump() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = abandoned_ = true;
    changed_.notify_all();
  }
  wake();
  thread_.join();
  ::close(wake_);
  if (terminal_ >= 0) ::close(terminal_);
}

void OutputPump::wake() const {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(wake_, &one, sizeof one));
}

bool OutputPump::takes_more() const noexcept {
  return queue_.size() < kQueueLimit || released_ || closing_ || error_ != 0;
}

bool OutputPump::has_room() const {
  const std::lock_guard lock(mutex_);
  return takes_more();
}

void OutputPump::push(std::span<const std::byte> bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return takes_more(); });
  if (closing_ || error_ != 0) return;
  queue_.insert(queue_.end(), bytes.begin(), bytes.end());
  changed_.notify_all();
}

void OutputPump::release() {
  const std::lock_guard lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

void OutputPump::body() {
  const int target = terminal_ >= 0 ? terminal_ : descriptor_;
  std::vector<std::byte> batch;
  std::unique_lock lock(mutex_);
  while (true) {
    idle_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !queue_.empty() || closing_; });
    if (queue_.empty() || abandoned_) return;
    idle_ = false;
    batch.clear();
    std::swap(batch, queue_);
    changed_.notify_all();
    for (std::size_t done = 0; done < batch.size() && !abandoned_;) {
      lock.unlock();
      pollfd waits[] = {{target, POLLOUT, 0}, {wake_, POLLIN, 0}};
      ::poll(waits, 2, -1);
      ssize_t count = 0;
      int error = 0;
      if (waits[0].revents != 0) {
        count = ::write(target, batch.data() + done, std::min(batch.size() - done, piece_));
        if (count < 0) error = errno;
        // A terminal may poll writable and not have room for the two characters that a newline becomes.
        if (error == EAGAIN) ::poll(waits + 1, 1, kRetryMs);
      }
      lock.lock();
      if (count > 0) {
        done += static_cast<std::size_t>(count);
        written_ += static_cast<std::uint64_t>(count);
        changed_.notify_all();
      } else if (error != 0 && error != EINTR && error != EAGAIN) {
        error_ = error;
        queue_.clear();
        idle_ = true;
        changed_.notify_all();
        lock.unlock();
        if (on_failure_) on_failure_();
        return;
      }
    }
  }
}

bool OutputPump::drain(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  closing_ = true;
  changed_.notify_all();
  const auto drained = [this] { return (queue_.empty() && idle_) || error_ != 0; };
  while (!drained()) {
    const std::uint64_t before = written_;
    if (!changed_.wait_for(lock, patience, [&] { return drained() || written_ != before; })) return false;
  }
  return error_ == 0;
}

Result<void> OutputPump::status() const {
  const std::lock_guard lock(mutex_);
  if (error_ == 0) return {};
  return fail(VmError::from_os(error_, "write console output to", name_));
}

}  // namespace vm_platform::vmp
