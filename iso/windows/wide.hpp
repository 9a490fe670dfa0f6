// UTF-8 names and Windows' error numbers.
#pragma once

#include <windows.h>

#include <string>
#include <string_view>
#include <vm_platform/core.hpp>

namespace vm_platform::iso {

[[nodiscard]] inline std::wstring widen(std::string_view text) {
  const int size = MultiByteToWideChar(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), nullptr, 0);
  std::wstring wide(static_cast<std::size_t>(size), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), wide.data(), size);
  return wide;
}

/// From GetLastError(); call it before anything else can change that.
[[nodiscard]] inline VmError windows_error(std::string operation, std::string subject, DWORD error = GetLastError()) {
  ErrorCode code = ErrorCode::Io;
  if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) code = ErrorCode::NotFound;
  if (error == ERROR_ACCESS_DENIED) code = ErrorCode::PermissionDenied;
  if (error == ERROR_SHARING_VIOLATION) code = ErrorCode::Busy;
  return VmError(code, std::move(operation), std::move(subject),
                 std::system_category().message(static_cast<int>(error)));
}

}  // namespace vm_platform::iso
