// What every part of the platform shares: errors and address types.
#pragma once

#include <compare>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace vm_platform {

/// The kind of failure, for callers that act on it. `vmp` maps these to exit statuses.
enum class ErrorCode : std::uint8_t {
  InvalidArgument,   ///< The caller asked for something that can never work; nothing was started.
  NotFound,          ///< The named thing does not exist.
  PermissionDenied,  ///< It exists, but this process may not use it.
  Busy,              ///< Somebody else is using it.
  OutOfMemory,       ///< Memory, address space or another limit is used up.
  Io,                ///< The operating system refused; `os_error()` says why.
  Corrupt,           ///< The input is damaged or is not what it claims to be.
  Unsupported,       ///< This host, build or device cannot do it.
  Status,            ///< The object is in the wrong state for this call.
  Interrupted,       ///< A signal or a stop request ended it.
  Timeout,           ///< It did not finish in time.
  Custom,            ///< See `detail()`.
};

[[nodiscard]] std::string_view to_string(ErrorCode code) noexcept;

/// What failed (operation), on what (subject), why (OS error or reason) and what to do about it (hint).
///
/// `message()` joins them into one line fit for a user: `open /dev/kvm: Permission denied; add yourself to group kvm`.
class [[nodiscard]] VmError {
 public:
  VmError(ErrorCode code, std::string operation, std::string subject, std::string reason = {});

  /// From `errno` (or another OS error number); the code is chosen from it.
  static VmError from_os(int os_error, std::string operation, std::string subject);
#ifdef _WIN32
  /// From `GetLastError()`, which counts differently than `errno`.
  static VmError from_last_error(unsigned long last_error, std::string operation, std::string subject);
#endif

  /// The same error with advice attached; the advice should name a command or a value.
  VmError with_hint(std::string hint) &&;
  /// The same error with a finer code, such as a `MemoryError` or a `PassthroughError`.
  VmError with_detail(std::error_code detail) &&;

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& operation() const noexcept { return operation_; }
  [[nodiscard]] const std::string& subject() const noexcept { return subject_; }
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }
  [[nodiscard]] const std::string& hint() const noexcept { return hint_; }
  /// The OS error number, or 0.
  [[nodiscard]] int os_error() const noexcept { return os_error_; }
  [[nodiscard]] const std::error_code& detail() const noexcept { return detail_; }
  [[nodiscard]] std::string message() const;

 private:
  ErrorCode code_;
  int os_error_ = 0;
  std::string operation_, subject_, reason_, hint_;
  std::error_code detail_;
};

template <typename T>
using Result = std::expected<T, VmError>;

/// `return fail(ErrorCode::Corrupt, "read kernel", path, "no boot flag");`
[[nodiscard]] inline std::unexpected<VmError> fail(ErrorCode code, std::string operation, std::string subject,
                                                   std::string reason = {}) {
  return std::unexpected(VmError(code, std::move(operation), std::move(subject), std::move(reason)));
}
[[nodiscard]] inline std::unexpected<VmError> fail(VmError error) { return std::unexpected(std::move(error)); }

/// An address in one address space; spaces do not convert into each other.
template <typename Tag>
struct Address {
  std::uint64_t value = 0;

  constexpr Address() = default;
  constexpr explicit Address(std::uint64_t v) : value(v) {}
  constexpr auto operator<=>(const Address&) const = default;
  constexpr Address operator+(std::uint64_t offset) const { return Address(value + offset); }
  constexpr Address operator-(std::uint64_t offset) const { return Address(value - offset); }
  constexpr std::uint64_t operator-(Address other) const { return value - other.value; }
};
using Gpa = Address<struct GpaTag>;    ///< Guest-physical address.
using Gva = Address<struct GvaTag>;    ///< Guest-virtual (linear) address.
using Iova = Address<struct IovaTag>;  ///< Address a device uses, translated by an IOMMU.

inline constexpr std::uint64_t kPageSize = 4096;
inline constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;

/// Rounds to a multiple of `unit`, a power of two. `round_up` wraps to 0 when the result does not fit.
[[nodiscard]] constexpr std::uint64_t round_down(std::uint64_t value, std::uint64_t unit) {
  return value & ~(unit - 1);
}
[[nodiscard]] constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) & ~(unit - 1);
}

/// "512M", "2G", "64K", "4096" as bytes. Fails on anything else, on overflow and on zero.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);

}  // namespace vm_platform
