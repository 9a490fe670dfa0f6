#include <cerrno>
#include <charconv>
#include <system_error>
#include <vm_platform/core.hpp>

#ifdef _WIN32
#include <windows.h>

#include <array>
#endif

namespace vm_platform {

std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::InvalidArgument: return "invalid argument";
    case ErrorCode::NotFound: return "not found";
    case ErrorCode::PermissionDenied: return "permission denied";
    case ErrorCode::Busy: return "busy";
    case ErrorCode::OutOfMemory: return "out of memory";
    case ErrorCode::Io: return "input/output error";
    case ErrorCode::Corrupt: return "damaged";
    case ErrorCode::Unsupported: return "not supported";
    case ErrorCode::Status: return "wrong state";
    case ErrorCode::Interrupted: return "interrupted";
    case ErrorCode::Timeout: return "timed out";
    case ErrorCode::Custom: return "failed";
  }
  return "failed";
}

namespace {
ErrorCode code_of_os_error(int os_error) {
  switch (os_error) {
    case ENOENT:
    case ENODEV:
    case ENXIO: return ErrorCode::NotFound;
    case EACCES:
    case EPERM: return ErrorCode::PermissionDenied;
    case EBUSY:
    case EAGAIN: return ErrorCode::Busy;
    case ENOMEM: return ErrorCode::OutOfMemory;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR: return ErrorCode::InvalidArgument;
    case ENOSYS: return ErrorCode::Unsupported;
    case EINTR: return ErrorCode::Interrupted;
    case ETIMEDOUT: return ErrorCode::Timeout;
    default: return ErrorCode::Io;
  }
}
}  // namespace

VmError::VmError(ErrorCode code, std::string operation, std::string subject, std::string reason)
    : code_(code), operation_(std::move(operation)), subject_(std::move(subject)), reason_(std::move(reason)) {}

VmError VmError::from_os(int os_error, std::string operation, std::string subject) {
  VmError error(code_of_os_error(os_error), std::move(operation), std::move(subject),
                std::generic_category().message(os_error));
  error.os_error_ = os_error;
  return error;
}

#ifdef _WIN32
namespace {
ErrorCode code_of_last_error(unsigned long last_error) {
  switch (last_error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_DRIVE: return ErrorCode::NotFound;
    case ERROR_ACCESS_DENIED:
    case ERROR_PRIVILEGE_NOT_HELD:
    case 1655: return ErrorCode::PermissionDenied;  // ERROR_DYNAMIC_CODE_BLOCKED, which MinGW does not name
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_USER_MAPPED_FILE:
    case ERROR_BUSY: return ErrorCode::Busy;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_COMMITMENT_LIMIT:
    case ERROR_WORKING_SET_QUOTA:
    case ERROR_NO_SYSTEM_RESOURCES: return ErrorCode::OutOfMemory;
    case ERROR_INVALID_PARAMETER:
    case ERROR_INVALID_ADDRESS:
    case ERROR_MAPPED_ALIGNMENT:
    case ERROR_INVALID_NAME:
    case ERROR_FILE_INVALID: return ErrorCode::InvalidArgument;
    case ERROR_NOT_SUPPORTED:
    case ERROR_CALL_NOT_IMPLEMENTED:
    case ERROR_INVALID_FUNCTION: return ErrorCode::Unsupported;
    case ERROR_TIMEOUT:
    case WAIT_TIMEOUT: return ErrorCode::Timeout;
    default: return ErrorCode::Io;
  }
}
}  // namespace

VmError VmError::from_last_error(unsigned long last_error, std::string operation, std::string subject) {
  std::array<char, 512> text{};
  const unsigned long length =
      ::FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS | FORMAT_MESSAGE_MAX_WIDTH_MASK,
                       nullptr, last_error, 0, text.data(), static_cast<unsigned long>(text.size()), nullptr);
  std::string reason(text.data(), length);
  while (!reason.empty() && (reason.back() == ' ' || reason.back() == '.')) reason.pop_back();
  if (reason.empty()) reason = "Windows error " + std::to_string(last_error);
  VmError error(code_of_last_error(last_error), std::move(operation), std::move(subject), std::move(reason));
  error.os_error_ = static_cast<int>(last_error);
  return error;
}
#endif

VmError VmError::with_hint(std::string hint) && {
  hint_ = std::move(hint);
  return std::move(*this);
}

VmError VmError::with_detail(std::error_code detail) && {
  detail_ = detail;
  return std::move(*this);
}

std::string VmError::message() const {
  std::string text = operation_;
  if (!subject_.empty()) text += (text.empty() ? "" : " ") + subject_;
  text += ": ";
  text += reason_.empty() ? std::string(to_string(code_)) : reason_;
  if (detail_) text += " (" + detail_.message() + ")";
  if (!hint_.empty()) text += "; " + hint_;
  return text;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  const auto bad = [&](const char* reason) {
    return fail(VmError(ErrorCode::InvalidArgument, "read size", "'" + std::string(text) + "'", reason)
                    .with_hint("give a number of bytes, or one with the suffix K, M, G or T, such as 512M"));
  };
  std::uint64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status == std::errc::result_out_of_range) return bad("too large");
  if (status != std::errc()) return bad("not a number");
  std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (suffix.size() == 3 && suffix.ends_with("iB")) suffix.remove_suffix(2);
  unsigned shift = 0;
  if (suffix == "K" || suffix == "k") {
    shift = 10;
  } else if (suffix == "M" || suffix == "m") {
    shift = 20;
  } else if (suffix == "G" || suffix == "g") {
    shift = 30;
  } else if (suffix == "T" || suffix == "t") {
    shift = 40;
  } else if (!suffix.empty()) {
    return bad("unknown suffix");
  }
  if (value == 0) return bad("zero");
  if (value > (UINT64_MAX >> shift)) return bad("too large");
  return value << shift;
}

}  // namespace vm_platform
