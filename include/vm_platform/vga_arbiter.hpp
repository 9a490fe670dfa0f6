// Who answers to the legacy VGA addresses (I/O 3B0h to 3DFh, memory A0000h to BFFFFh): only one card of a host can at a
// time, and the kernel's arbiter decides which (Linux Documentation/gpu/vgaarbiter.rst).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// Legacy resources, as a bit mask of I/O ports and memory.
enum class VgaResource : std::uint8_t { None = 0, Io = 1, Memory = 2, Both = 3 };
/// "none", "io", "mem", "io+mem", as the arbiter writes it.
[[nodiscard]] std::string_view to_string(VgaResource resource) noexcept;

/// What the arbiter says of one card.
struct VgaCard {
  PciAddress address;
  VgaResource decodes = VgaResource::None;  ///< What it would answer to.
  VgaResource owns = VgaResource::None;     ///< What is routed to it now.
  VgaResource locks = VgaResource::None;    ///< What is locked to it.
};
/// Reads "count:1,PCI:0000:00:01.0,decodes=io+mem,owns=io+mem,locks=none(0:0)".
[[nodiscard]] Result<VgaCard> parse_vga_status(std::string_view text);

/// The kernel's arbiter, through /dev/vga_arbiter. Locks belong to this object: they go when it does, also when the
/// process is killed. Not thread-safe.
class VgaArbiter {
 public:
  /// `PermissionDenied` and `NotFound` as for any file; only root may open it on most hosts.
  static Result<VgaArbiter> open(const std::filesystem::path& file = "/dev/vga_arbiter");
  VgaArbiter(VgaArbiter&& other) noexcept;
  VgaArbiter& operator=(VgaArbiter&& other) noexcept;
  ~VgaArbiter();

  /// What the arbiter knows of a card; `NotFound` for what is not of VGA class.
  Result<VgaCard> status(PciAddress card);
  /// Has the card answer to these resources only, and checks that it came to be. The driver of a card may have taken
  /// that decision to itself: then the kernel changes nothing, which is `Status`.
  Result<void> set_decodes(PciAddress card, VgaResource resources);
  /// Routes the resources to the card until `unlock`, waiting for other holders.
  Result<void> lock(PciAddress card, VgaResource resources);
  /// The same without waiting; `Busy` where somebody else holds them.
  Result<void> try_lock(PciAddress card, VgaResource resources);
  Result<void> unlock(PciAddress card, VgaResource resources);

 private:
  explicit VgaArbiter(int descriptor) : descriptor_(descriptor) {}
  Result<void> command(PciAddress card, const std::string& text) const;
  int descriptor_ = -1;
};

}  // namespace vm_platform
