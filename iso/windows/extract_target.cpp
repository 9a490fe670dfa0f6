#include "iso/extract_target.hpp"

#include <windows.h>

#include <algorithm>
#include <array>

#include "iso/reader.hpp"
#include "iso/windows/wide.hpp"

namespace vm_platform::iso {
namespace {

/// 100 ns units since 1601.
FILETIME file_time(const IsoTime& time) {
  const std::int64_t ticks = (time.seconds + 11644473600LL) * 10'000'000LL + time.nanoseconds / 100;
  return {static_cast<DWORD>(ticks & 0xFFFFFFFF), static_cast<DWORD>(ticks >> 32)};
}

class Handle {
 public:
  explicit Handle(HANDLE value) : value_(value) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (value_ != INVALID_HANDLE_VALUE) CloseHandle(value_);
  }
  [[nodiscard]] HANDLE get() const { return value_; }
  [[nodiscard]] bool valid() const { return value_ != INVALID_HANDLE_VALUE; }

 private:
  HANDLE value_;
};

/// Holds its directory open without FILE_SHARE_DELETE: while it is, nobody can put a junction in its place.
class WindowsDirectory final : public TargetDirectory {
 public:
  WindowsDirectory(HANDLE handle, std::wstring path, IsoExtractOptions options, std::shared_ptr<TargetDirectory> parent,
                   const IsoTime& modified)
      : handle_(handle),
        path_(std::move(path)),
        options_(std::move(options)),
        parent_(std::move(parent)),
        modified_(modified) {}
  WindowsDirectory(const WindowsDirectory&) = delete;
  WindowsDirectory& operator=(const WindowsDirectory&) = delete;
  ~WindowsDirectory() override {
    if (!modified_.present) return;
    const FILETIME time = file_time(modified_);
    SetFileTime(handle_.get(), nullptr, nullptr, &time);
  }

  static Result<std::shared_ptr<TargetDirectory>> open(const std::wstring& path, const std::string& name,
                                                       const IsoExtractOptions& options,
                                                       std::shared_ptr<TargetDirectory> parent,
                                                       const IsoTime& modified) {
    const bool made = CreateDirectoryW(path.c_str(), nullptr) != 0;
    if (!made && GetLastError() != ERROR_ALREADY_EXISTS) return fail(windows_error("make directory", name));
    HANDLE handle = CreateFileW(path.c_str(), FILE_LIST_DIRECTORY | FILE_WRITE_ATTRIBUTES | FILE_READ_ATTRIBUTES,
                                FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr, OPEN_EXISTING,
                                FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, nullptr);
    if (handle == INVALID_HANDLE_VALUE) return fail(windows_error("enter", name));
    auto directory = std::make_shared<WindowsDirectory>(handle, path, options, std::move(parent), modified);
    BY_HANDLE_FILE_INFORMATION info{};
    const bool known = GetFileInformationByHandle(handle, &info) != 0;
    if (!known || (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 ||
        (info.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) {
      directory->modified_.present = false;
      return fail(ErrorCode::Busy, "enter", name, "something that is no directory has its name");
    }
    // One that was there already belongs to somebody else's tree, unless we were told to take it over.
    if (!made && options.existing == IsoExisting::Refuse) directory->modified_.present = false;
    return directory;
  }

  Result<std::shared_ptr<TargetDirectory>> enter(std::shared_ptr<TargetDirectory> self,
                                                 const IsoEntry& entry) override {
    return open(path_ + L"\\" + widen(entry.name), entry.name, options_, std::move(self), entry.modified);
  }

  Result<Outcome> add(const SimpleIso9660& iso, const IsoEntry& entry) override {
    if (!entry.is_file()) return Outcome::Skipped;  // links need a privilege that few have
    if (auto ok = check_readable(entry); !ok) return fail(std::move(ok.error()));
    const std::wstring path = path_ + L"\\" + widen(entry.name);
    Handle file(create(path));
    if (!file.valid()) {
      if (GetLastError() != ERROR_FILE_EXISTS) return fail(windows_error("write", entry.name));
      auto kept = existing(path, entry);
      if (!kept) return fail(std::move(kept.error()));
      if (*kept) return Outcome::Kept;
      Handle again(create(path));
      if (!again.valid()) return fail(windows_error("write", entry.name));
      return fill(iso, entry, again.get());
    }
    return fill(iso, entry, file.get());
  }

 private:
  static HANDLE create(const std::wstring& path) {
    return CreateFileW(path.c_str(), GENERIC_WRITE | DELETE, 0, nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr);
  }

  Result<bool> existing(const std::wstring& path, const IsoEntry& entry) const {
    if (options_.existing == IsoExisting::Refuse) {
      return fail(VmError(ErrorCode::Busy, "write", entry.name, "is there already")
                      .with_hint("extract into an empty directory, or use --resume or --overwrite"));
    }
    WIN32_FILE_ATTRIBUTE_DATA data{};
    if (!GetFileAttributesExW(path.c_str(), GetFileExInfoStandard, &data))
      return fail(windows_error("examine", entry.name));
    const FILETIME wanted = file_time(entry.modified);
    const std::uint64_t size = (static_cast<std::uint64_t>(data.nFileSizeHigh) << 32) | data.nFileSizeLow;
    if (options_.existing == IsoExisting::Resume && entry.modified.present && size == entry.size &&
        CompareFileTime(&data.ftLastWriteTime, &wanted) == 0) {
      return true;
    }
    if (!DeleteFileW(path.c_str())) return fail(windows_error("replace", entry.name));
    return false;
  }

  Result<Outcome> fill(const SimpleIso9660& iso, const IsoEntry& entry, HANDLE file) const {
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(entry.size, 1 * kMiB)));
    const auto give_up = [&](VmError error) {
      FILE_DISPOSITION_INFO remove{TRUE};
      SetFileInformationByHandle(file, FileDispositionInfo, &remove, sizeof remove);
      return fail(std::move(error));
    };
    for (std::uint64_t done = 0; done < entry.size;) {
      if (options_.progress != nullptr && options_.progress->stop.load(std::memory_order_relaxed))
        return give_up(VmError(ErrorCode::Interrupted, "write", entry.name, "was stopped"));
      auto got = iso.read(entry, done, buffer);
      if (!got) return give_up(std::move(got.error()));
      DWORD put = 0;
      if (!WriteFile(file, buffer.data(), static_cast<DWORD>(*got), &put, nullptr) || put != *got)
        return give_up(windows_error("write", entry.name));
      done += *got;
    }
    if (entry.modified.present) {
      const FILETIME time = file_time(entry.modified);
      SetFileTime(file, nullptr, nullptr, &time);
    }
    return Outcome::Written;
  }

  Handle handle_;
  std::wstring path_;
  IsoExtractOptions options_;
  std::shared_ptr<TargetDirectory> parent_;
  IsoTime modified_;
};

}  // namespace

bool is_file_name(std::string_view name) {
  if (name.empty() || name.ends_with('.') || name.ends_with(' '))
    return false;  // Windows drops these: another file's name
  if (std::ranges::any_of(name, [](char c) {
        return static_cast<unsigned char>(c) < 0x20 ||
               std::string_view("<>:\"/\\|?*").find(c) != std::string_view::npos;
      }))
    return false;
  std::string stem(name.substr(0, name.find('.')));
  std::ranges::transform(stem, stem.begin(),
                         [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  while (stem.ends_with(' ')) stem.pop_back();
  constexpr std::string_view kDevices[] = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"};
  if (std::ranges::find(kDevices, stem) != std::end(kDevices)) return false;
  return !(stem.size() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")) && stem[3] >= '0' &&
           stem[3] <= '9');
}

Result<std::shared_ptr<TargetDirectory>> open_target(const std::string& path, const IsoExtractOptions& options,
                                                     TargetState&) {
  return WindowsDirectory::open(widen(path), path, options, nullptr, IsoTime{});
}

}  // namespace vm_platform::iso
