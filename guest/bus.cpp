#include "guest/bus.hpp"

#include <algorithm>

namespace vm_platform {
namespace {

template <typename Window, typename Number>
auto covering(const std::vector<Window>& windows, Number Window::* start, Number at) {
  auto next = std::upper_bound(windows.begin(), windows.end(), at,
                               [start](Number value, const Window& window) { return value < window.*start; });
  return next == windows.begin() ? windows.end() : next - 1;
}

std::uint64_t all_ones(unsigned size) { return size >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (size * 8)) - 1; }

}  // namespace

Result<void> PortBus::attach(std::uint16_t first, std::uint32_t count, PortDevice& device, std::string name) {
  if (count == 0 || first + count > 0x10000) return fail(ErrorCode::InvalidArgument, "attach ports of", name);
  for (const Window& other : windows_) {
    if (first < other.first + other.count && other.first < first + count)
      return fail(ErrorCode::Busy, "attach ports of", name, "they belong to " + other.name);
  }
  const Window window{first, count, &device, std::move(name)};
  windows_.insert(std::upper_bound(windows_.begin(), windows_.end(), window,
                                   [](const Window& a, const Window& b) { return a.first < b.first; }),
                  window);
  return {};
}

PortDevice* PortBus::find(std::uint16_t port) const noexcept {
  const auto window = covering(windows_, &Window::first, port);
  if (window == windows_.end() || static_cast<std::uint32_t>(port - window->first) >= window->count) return nullptr;
  return window->device;
}

std::uint32_t PortBus::read(std::uint16_t port, unsigned size) {
  PortDevice* device = find(port);
  const auto mask = static_cast<std::uint32_t>(all_ones(size));
  return device == nullptr ? mask : device->port_read(port, size) & mask;
}

void PortBus::write(std::uint16_t port, unsigned size, std::uint32_t value) {
  if (PortDevice* device = find(port))
    device->port_write(port, size, value & static_cast<std::uint32_t>(all_ones(size)));
}

Result<void> MmioBus::attach(Gpa base, std::uint64_t size, MmioDevice& device, std::string name) {
  if (size == 0 || base.value + size < base.value) return fail(ErrorCode::InvalidArgument, "attach registers of", name);
  for (const Window& other : windows_) {
    if (base < other.base + other.size && other.base < base + size)
      return fail(ErrorCode::Busy, "attach registers of", name, "the addresses belong to " + other.name);
  }
  const Window window{base, size, &device, std::move(name)};
  windows_.insert(std::upper_bound(windows_.begin(), windows_.end(), window,
                                   [](const Window& a, const Window& b) { return a.base < b.base; }),
                  window);
  return {};
}

const MmioBus::Window* MmioBus::find(Gpa address, unsigned size) const noexcept {
  const auto window = covering(windows_, &Window::base, address);
  if (window == windows_.end()) return nullptr;
  const std::uint64_t offset = address - window->base;
  return offset < window->size && size <= window->size - offset ? &*window : nullptr;
}

std::uint64_t MmioBus::read(Gpa address, unsigned size, unsigned vcpu) {
  const Window* window = find(address, size);
  if (window == nullptr) return all_ones(size);
  return window->device->mmio_read(address - window->base, size, vcpu) & all_ones(size);
}

void MmioBus::write(Gpa address, unsigned size, std::uint64_t value, unsigned vcpu) {
  if (const Window* window = find(address, size))
    window->device->mmio_write(address - window->base, size, value & all_ones(size), vcpu);
}

}  // namespace vm_platform
