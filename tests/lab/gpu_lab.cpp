// Plays the guest's part of a GPU: opens it, reads the ROM that a guest would see, and takes turns with the host on the
// legacy VGA addresses. With a UUID it opens a mediated device: gpu_lab ADDRESS ROM | gpu_lab UUID
#include <cstdio>
#include <string>
#include <vm_platform/gpu.hpp>
#include <vm_platform/vfio.hpp>
#include <vm_platform/vga_arbiter.hpp>
#include <vm_platform/vgpu.hpp>

namespace {

using namespace vm_platform;

int complain(const VmError& error) {
  std::printf("%s\n", error.message().c_str());
  return 1;
}
int complain(const char* what) {
  std::printf("%s\n", what);
  return 1;
}

int open_mediated(const std::string& uuid) {
  const auto host = VfioHost::open();
  if (!host) return complain(host.error());
  const auto device = (*host)->open_mediated(uuid);
  if (!device) return complain(device.error());
  const auto config = (*device)->config_read(0, 4);
  if (!config) return complain(config.error());
  std::printf("mediated device %s: %08x\n", uuid.c_str(), *config);
  return *config == 0xffffffff ? 1 : 0;
}

int arbitrate(PciAddress address) {
  auto arbiter = VgaArbiter::open();
  if (!arbiter) return complain(arbiter.error());
  const auto status = arbiter->status(address);
  if (!status) return complain(status.error());
  std::printf("VGA: decodes %s, owns %s\n", std::string(to_string(status->decodes)).c_str(),
              std::string(to_string(status->owns)).c_str());
  if (auto locked = arbiter->lock(address, VgaResource::Both); !locked) return complain(locked.error());
  const auto held = arbiter->status(address);
  if (!held) return complain(held.error());
  if (held->owns != VgaResource::Both) return complain("a locked card does not own the legacy addresses");
  if (auto unlocked = arbiter->unlock(address, VgaResource::Both); !unlocked) return complain(unlocked.error());
  return 0;
}

int open_gpu(PciAddress address, const char* saved) {
  auto host = VfioHost::open();
  if (!host) return complain(host.error());
  const auto device = (*host)->open_device(address);
  if (!device) return complain(device.error());
  GpuConfig gpu;
  auto info = read_pci_device(address);
  if (!info) return complain(info.error());
  gpu.device = std::move(*info);
  const auto own = guest_rom(gpu, **device);
  if (!own) return complain(own.error());
  for (const std::string& problem : own->problems) std::printf("ROM: %s\n", problem.c_str());
  gpu.rom_file = saved;
  const auto file = guest_rom(gpu, **device);
  if (!file) return complain(file.error());
  std::printf("ROM: %zu bytes of its own, %zu of the file\n", own->bytes.size(), file->bytes.size());
  if (own->bytes.empty() || own->bytes != file->bytes) return complain("they differ");
  const auto vga = (*device)->region(VfioRegion::kVga);
  std::printf("VGA region: %s\n", vga && vga->size != 0 ? "there" : "none");
  if (!vga || vga->size == 0) return complain("a VGA device has no VGA region");
  std::byte status{};
  // Input status 1 (3DAh) is a register of every VGA.
  if (auto read = (*device)->read(VfioRegion::kVga, 0x3da, {&status, 1}); !read) return complain(read.error());
  const auto members = (*device)->hot_reset_members();
  if (!members) return complain(members.error());
  std::printf("a bus reset takes %zu functions along\n", members->size());
  if (members->size() != 3) return complain("expected 3");
  return arbitrate(address);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && is_uuid(argv[1])) return open_mediated(argv[1]);
  const auto address = PciAddress::parse(argc == 3 ? argv[1] : "");
  if (!address) return 2;
  return open_gpu(*address, argv[2]);
}
