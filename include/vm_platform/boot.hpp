// Boot: choose a loader for a kernel, put it into a guest's memory, and say where the first CPU begins.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

class GuestMemory;
struct CpuState;

/// How a kernel is started.
enum class BootMethod : std::uint8_t {
  Auto,       ///< What the file says it is: a bzImage, an ELF with the PVH note, or a Multiboot kernel, in this order.
  Linux,      ///< Linux bzImage by the 64-bit entry (The Linux/x86 Boot Protocol, 2.12 or later).
  Pvh,        ///< ELF with the note XEN_ELFNOTE_PHYS32_ENTRY (Xen's PVH boot ABI).
  Multiboot,  ///< Multiboot specification 0.6.96: ELF32, or the addresses in the Multiboot header.
};

/// "linux", "pvh", "multiboot", "auto".
[[nodiscard]] std::string_view to_string(BootMethod method) noexcept;

/// A file given to the kernel: part of a Linux initramfs, a PVH or a Multiboot module.
struct BootModule {
  std::string path;
  std::string command_line = {};  ///< For PVH and Multiboot modules; Linux has no such thing.
};

/// What to boot.
struct BootConfig {
  BootMethod method = BootMethod::Auto;
  std::string kernel;                    ///< Path of the kernel image.
  std::vector<BootModule> modules = {};  ///< Linux unpacks them one after another, as if they were one initramfs.
  std::string command_line = {};
};

/// A range of guest-physical addresses as firmware would describe it (ACPI 6.4, 15, "System Address Map Interfaces").
struct BootMemoryRange {
  enum class Type : std::uint32_t { Ram = 1, Reserved = 2, AcpiReclaimable = 3, AcpiNvs = 4 };
  Gpa base;
  std::uint64_t size = 0;
  Type type = Type::Ram;
};

/// The machine a kernel is loaded into. Nothing is placed outside of the `Ram` ranges of the map.
struct BootMachine {
  const GuestMemory* memory = nullptr;
  std::span<const BootMemoryRange> memory_map = {};
  Gpa rsdp = {};  ///< Where the ACPI tables begin; 0 for none.
};

/// What was loaded, and where.
struct BootStatus {
  struct Placed {
    std::string what;  ///< "kernel", "initramfs", "command line", …
    Gpa address;
    std::uint64_t size = 0;  ///< Bytes of guest memory it takes.
  };
  bool loaded = false;
  BootMethod method = BootMethod::Auto;  ///< The one that was chosen.
  std::string kernel_version = {};       ///< As the image says, or empty.
  Gpa entry = {};
  std::vector<Placed> placed = {};
};

/// Loads a kernel. `load` may be called again after each reset of the machine.
class BootManager {
 public:
  virtual ~BootManager() = default;

  /// Checks everything, then writes the kernel and what it is given into guest memory and sets `cpu`, the first CPU in
  /// its reset state, to begin there. On an error neither was touched, unless reading a file failed half-way.
  ///
  /// Errors: `Corrupt` for an image that is damaged or no kernel, `Unsupported` for one of another architecture or
  /// kind, `InvalidArgument` for what does not fit into the guest's memory, `Io` for a file that cannot be read.
  virtual Result<void> load(const BootMachine& machine, CpuState& cpu) = 0;
  [[nodiscard]] virtual const BootStatus& status() const noexcept = 0;
};

/// The loaders of this library. Not thread-safe.
class SimpleBootManager final : public BootManager {
 public:
  /// Opens the files, which stay open; a file replaced later does not change what is booted. Fails with `NotFound` or
  /// `PermissionDenied` naming the file, or `InvalidArgument` for one that is not a regular file or is empty.
  static Result<std::unique_ptr<SimpleBootManager>> open(BootConfig config);
  ~SimpleBootManager() override;

  Result<void> load(const BootMachine& machine, CpuState& cpu) override;
  [[nodiscard]] const BootStatus& status() const noexcept override;

 private:
  struct Files;
  SimpleBootManager(BootConfig config, std::unique_ptr<Files> files);

  BootConfig config_;
  std::unique_ptr<Files> files_;
  BootStatus status_;
};

}  // namespace vm_platform
