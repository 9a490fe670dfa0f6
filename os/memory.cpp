// What MappedMemory is on every host: checks, and the calls that only combine others.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <utility>

#include "os/mapping.hpp"

namespace vm_platform {

std::string_view to_string(MemoryProtection protection) noexcept {
  constexpr std::array<std::string_view, 8> kNames = {"---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"};
  return kNames[static_cast<std::size_t>(protection) & 7];
}

namespace {

class MemoryErrorCategory : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "memory"; }
  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<MemoryError>(value)) {
      case MemoryError::MapLimit: return "too many mappings";
      case MemoryError::AddressSpaceLimit: return "address space limit";
      case MemoryError::Overcommit: return "strict overcommit";
      case MemoryError::OutOfMemory: return "out of memory";
      case MemoryError::LockLimit: return "limit on locked memory";
      case MemoryError::NoHugePages: return "no huge pages";
      case MemoryError::AddressTaken: return "address in use";
      case MemoryError::ExecutableDenied: return "executable memory denied";
      case MemoryError::Denied: return "call denied";
      case MemoryError::FileShrank: return "file shrank";
      case MemoryError::OutOfRange: return "out of range";
      case MemoryError::Misaligned: return "misaligned";
      case MemoryError::WritableExecutable: return "writable and executable";
      case MemoryError::FileSizeLimit: return "file size limit";
      case MemoryError::NotAccessible: return "not accessible";
    }
    return "memory error";
  }
};

std::string readable_size(std::uint64_t size) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (unit + 1 < kUnits.size() && size != 0 && size % 1024 == 0) {
    size /= 1024;
    ++unit;
  }
  return std::to_string(size) + " " + kUnits[unit];
}

}  // namespace

std::error_code make_error_code(MemoryError error) noexcept {
  static const MemoryErrorCategory category;
  return {static_cast<int>(error), category};
}

std::string describe_range(const std::string& name, std::uint64_t size, const void* address) {
  std::string text = readable_size(size) + " of " + name;
  if (address != nullptr) {
    std::array<char, 32> hex{};
    std::snprintf(hex.data(), hex.size(), " at %p", address);
    text += hex.data();
  }
  return text;
}

VmError memory_error(ErrorCode code, MemoryError detail, std::string operation, std::string subject,
                     std::string reason) {
  return VmError(code, std::move(operation), std::move(subject), std::move(reason))
      .with_detail(make_error_code(detail));
}

VmError not_accessible(const char* operation, std::string subject, bool write) {
  return memory_error(ErrorCode::Status, MemoryError::NotAccessible, operation, std::move(subject),
                      std::string("part of it may not be ") + (write ? "written" : "read"))
      .with_hint("commit() it, or protect() it otherwise, first");
}

Result<void> check_options(MemoryOptions& options, std::uint64_t page_size) {
  const auto subject = [&] { return std::to_string(options.size) + " bytes of " + options.name; };
  const auto refuse = [&](const char* reason) {
    return fail(ErrorCode::InvalidArgument, "map memory", subject(), reason);
  };
  if (options.size == 0) return refuse("the size is zero");
  if (options.size > kLargestMapping) return refuse("larger than 64 TiB");
  if (options.guard_before > kLargestMapping || options.guard_after > kLargestMapping) return refuse("guard too large");
  if (options.alignment != 0 && !std::has_single_bit(options.alignment)) {
    return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::Misaligned, "map memory", subject(),
                             "the alignment is not a power of two"));
  }
  if (options.alignment > kLargestMapping) return refuse("the alignment is too large");
  if (allows(options.protection, MemoryProtection::Execute)) {
    return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::WritableExecutable, "map memory", subject(),
                             "fresh memory would have to be writable and executable")
                    .with_hint("use JitMemory for generated code, or protect() once it is written"));
  }
  const std::uint64_t guard_before = round_up(options.guard_before, page_size);
  if (options.fixed_address != nullptr) {
    const auto address = reinterpret_cast<std::uintptr_t>(options.fixed_address);
    if (address % std::max(options.alignment, page_size) != 0 || address < guard_before) {
      return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::Misaligned, "map memory", subject(),
                               "the fixed address is not aligned, or has no room for the guard below"));
    }
  }
  options.size = round_up(options.size, page_size);
  options.guard_before = guard_before;
  options.guard_after = round_up(options.guard_after, page_size);
  return {};
}

Result<std::uint64_t> check_file_range(const std::string& name, const FileMappingOptions& options, std::uint64_t length,
                                       std::uint64_t granularity) {
  const auto refuse = [&](std::string reason) {
    return fail(ErrorCode::InvalidArgument, "map file", name, std::move(reason));
  };
  if (options.offset % granularity != 0) return refuse("the offset is not a multiple of " + readable_size(granularity));
  if (options.offset >= length) return refuse(length == 0 ? "the file is empty" : "the offset is behind the end");
  const std::uint64_t size = options.size != 0 ? options.size : length - options.offset;
  if (size > length - options.offset) return refuse("the file is shorter than that");
  return size;
}

std::unique_ptr<MappedMemory::State> MappedMemory::State::of_file(const std::string& name,
                                                                  const FileMappingOptions& options) {
  auto state = std::make_unique<State>();
  state->name = name;
  state->page_size = host_page_size();
  state->file_offset = options.offset;
  state->protection = options.access == FileAccess::ReadOnly ? MemoryProtection::Read : MemoryProtection::ReadWrite;
  state->access = options.access;
  state->shared = options.access != FileAccess::Private;
  state->file = true;
  return state;
}

std::unique_ptr<MappedMemory::State> MappedMemory::State::of_view(MemoryProtection view_protection,
                                                                  std::uint64_t offset) const {
  auto view = std::make_unique<State>();
  view->name = name;
  view->page_size = page_size;
  view->alignment = alignment;
  view->file_offset = file_offset + offset;
  view->protection = view_protection;
  view->huge_pages = huge_pages;
  view->access = allows(view_protection, MemoryProtection::Write) ? FileAccess::Shared : FileAccess::ReadOnly;
  view->shared = true;
  view->file = file;
  return view;
}

Result<MappedMemory> MappedMemory::finish(std::byte* data, std::uint64_t size, std::unique_ptr<State> state,
                                          bool prefault) {
  MappedMemory memory;
  memory.data_ = data;
  memory.size_ = size;
  memory.state_ = std::move(state);
  if (prefault) {
    if (auto done = memory.prefault(); !done) return fail(done.error());
  }
  return memory;
}

Result<MappedMemory> MappedMemory::create_shared(std::uint64_t size, const std::string& name) {
  return create({.size = size, .name = name, .shared = true});
}

MappedMemory::MappedMemory() noexcept = default;
MappedMemory::MappedMemory(MappedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      state_(std::move(other.state_)) {}
MappedMemory& MappedMemory::operator=(MappedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(state_, other.state_);
  return *this;
}
MappedMemory::~MappedMemory() {
  if (data_ != nullptr) release();
}

int MappedMemory::descriptor() const noexcept { return state_ ? state_->descriptor : -1; }
std::uint64_t MappedMemory::page_size() const noexcept { return state_ ? state_->page_size : host_page_size(); }
bool MappedMemory::shared() const noexcept { return state_ && state_->shared; }
HugePages MappedMemory::huge_pages() const noexcept { return state_ ? state_->huge_pages : HugePages::None; }
const std::string& MappedMemory::note() const noexcept {
  static const std::string none;
  return state_ ? state_->note : none;
}

Result<std::uint64_t> MappedMemory::check_range(const char* operation, std::uint64_t offset, std::uint64_t size,
                                                bool whole_pages) const {
  if (data_ == nullptr) return fail(ErrorCode::Status, operation, "memory", "nothing is mapped");
  const auto refuse = [&](MemoryError detail, const char* reason) {
    return fail(memory_error(ErrorCode::InvalidArgument, detail, operation,
                             describe_range(state_->name, size, data_) + " + " + std::to_string(offset), reason));
  };
  if (offset > size_ || size > size_ - offset) return refuse(MemoryError::OutOfRange, "not within the mapping");
  if (size == 0) size = size_ - offset;
  if (size == 0) return refuse(MemoryError::OutOfRange, "nothing is left to the end");
  if (whole_pages && ((offset | size) & (state_->page_size - 1)) != 0) {
    // The last page of a file mapping may be partial: its end is a boundary too.
    if (!((offset & (state_->page_size - 1)) == 0 && offset + size == size_))
      return refuse(MemoryError::Misaligned, "not a multiple of the page size");
  }
  return size;
}

Result<std::uint64_t> MappedMemory::check_view(MemoryProtection protection, std::uint64_t offset,
                                               std::uint64_t size) const {
  constexpr const char* kOperation = "map a second view of";
  const auto length = check_range(kOperation, offset, size);
  if (!length) return length;
  const auto subject = [&] { return describe_range(state_->name, *length, data_ + offset); };
  if (!state_->shared) {
    return fail(VmError(ErrorCode::Status, kOperation, subject(), "private memory has only one")
                    .with_hint("create it with MemoryOptions::shared"));
  }
  if (allows(protection, MemoryProtection::Execute)) {
    return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::WritableExecutable, kOperation, subject(),
                             "executable views exist only in JitMemory"));
  }
  return length;
}

Result<std::uint64_t> MappedMemory::resident_bytes(std::uint64_t offset, std::uint64_t size) const {
  const auto length = check_range("mincore", offset, size);
  if (!length) return fail(length.error());
  constexpr std::uint64_t kPiece = kGiB;  // of a large range no large list
  std::uint64_t count = 0;
  for (std::uint64_t done = 0; done < *length; done += kPiece) {
    const auto pages = residency(offset + done, std::min(kPiece, *length - done));
    if (!pages) return fail(pages.error());
    count += static_cast<std::uint64_t>(std::ranges::count(*pages, true));
  }
  return count * host_page_size();
}

}  // namespace vm_platform
