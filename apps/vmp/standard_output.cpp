#include "apps/vmp/standard_output.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {

void hold_closed_descriptors() {
  for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one: those below are open by now.
    static_cast<void>(::open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY));
  }
}

int lost_output(int os_error) {
  if (os_error != EPIPE) complain(VmError::from_os(os_error, "write", "standard output").message());
  return kFailed;
}

int finish_output(int status) {
  const bool failed_before = std::ferror(stdout) != 0;
  errno = 0;
  if (std::fflush(stdout) == 0 && !failed_before) return status;
  // What failed before without a word (std::fwrite) is still there, and fflush fails again and says why.
  const int lost = lost_output(errno != 0 ? errno : EIO);
  return status == kDone ? lost : status;
}

}  // namespace vm_platform::vmp
