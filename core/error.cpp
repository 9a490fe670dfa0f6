#include <cerrno>
#include <charconv>
#include <system_error>
#include <vm_platform/core.hpp>

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
  if (suffix.ends_with("iB")) suffix.remove_suffix(2);
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
