#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vm_platform/memory.hpp>

namespace vm_platform {
namespace {

Result<std::byte*> map(std::uint64_t size, int protection, int flags, int descriptor, const char* what) {
  void* address = ::mmap(nullptr, size, protection, flags, descriptor, 0);
  if (address == MAP_FAILED) return fail(VmError::from_os(errno, "mmap", std::to_string(size) + " bytes of " + what));
  return static_cast<std::byte*>(address);
}

Result<int> create_memfd(std::uint64_t size, const std::string& name) {
  const int descriptor = ::memfd_create(name.c_str(), MFD_CLOEXEC);
  if (descriptor < 0) return fail(VmError::from_os(errno, "memfd_create", name));
  if (::ftruncate(descriptor, static_cast<off_t>(size)) != 0) {
    const int error = errno;
    ::close(descriptor);
    return fail(VmError::from_os(error, "ftruncate", name + " to " + std::to_string(size) + " bytes"));
  }
  return descriptor;
}

Result<std::uint64_t> checked_size(std::uint64_t size) {
  if (size == 0 || size > (1ULL << 46))
    return fail(ErrorCode::InvalidArgument, "map memory", std::to_string(size) + " bytes");
  return round_up(size, kPageSize);
}

}  // namespace

Result<MappedMemory> MappedMemory::create_shared(std::uint64_t size, const std::string& name) {
  const auto rounded = checked_size(size);
  if (!rounded) return fail(rounded.error());
  const auto descriptor = create_memfd(*rounded, name);
  if (!descriptor) return fail(descriptor.error());
  MappedMemory memory;
  memory.descriptor_ = *descriptor;
  const auto data = map(*rounded, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *descriptor, name.c_str());
  if (!data) return fail(data.error());
  memory.data_ = *data;
  memory.size_ = *rounded;
  return memory;
}

Result<MappedMemory> MappedMemory::create_private(std::uint64_t size) {
  const auto rounded = checked_size(size);
  if (!rounded) return fail(rounded.error());
  const auto data =
      map(*rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, "private memory");
  if (!data) return fail(data.error());
  MappedMemory memory;
  memory.data_ = *data;
  memory.size_ = *rounded;
  return memory;
}

MappedMemory::MappedMemory(MappedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

MappedMemory& MappedMemory::operator=(MappedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<JitMemory> JitMemory::create(std::uint64_t size) {
  const auto rounded = checked_size(size);
  if (!rounded) return fail(rounded.error());
  const auto descriptor = create_memfd(*rounded, "generated-code");
  if (!descriptor) return fail(descriptor.error());
  JitMemory memory;
  memory.size_ = *rounded;
  const auto writable = map(*rounded, PROT_READ | PROT_WRITE, MAP_SHARED, *descriptor, "generated code");
  if (writable) memory.writable_ = *writable;
  const auto executable = map(*rounded, PROT_READ | PROT_EXEC, MAP_SHARED, *descriptor, "generated code");
  if (executable) memory.executable_ = *executable;
  ::close(*descriptor);
  if (!writable) return fail(writable.error());
  if (!executable) return fail(executable.error());
  return memory;
}

JitMemory::JitMemory(JitMemory&& other) noexcept
    : writable_(std::exchange(other.writable_, nullptr)),
      executable_(std::exchange(other.executable_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

JitMemory& JitMemory::operator=(JitMemory&& other) noexcept {
  std::swap(writable_, other.writable_);
  std::swap(executable_, other.executable_);
  std::swap(size_, other.size_);
  return *this;
}

JitMemory::~JitMemory() {
  if (writable_ != nullptr) ::munmap(writable_, size_);
  if (executable_ != nullptr) ::munmap(executable_, size_);
}

}  // namespace vm_platform
