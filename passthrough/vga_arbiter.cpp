#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>
#include <utility>
#include <vm_platform/vga_arbiter.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"none", "io", "mem", "io+mem"};

std::optional<VgaResource> resource(std::string_view text) {
  for (const VgaResource candidate : {VgaResource::None, VgaResource::Io, VgaResource::Memory, VgaResource::Both})
    if (text == to_string(candidate)) return candidate;
  return std::nullopt;
}

}  // namespace

std::string_view to_string(VgaResource resource) noexcept { return kNames[static_cast<std::uint8_t>(resource) & 3]; }

Result<VgaCard> parse_vga_status(std::string_view text) {
  VgaCard card;
  bool addressed = false;
  int read = 0;
  std::string_view rest = text::trim(text);
  while (!rest.empty()) {
    std::string_view part = text::take(rest, ',');
    if (part.starts_with("PCI:")) {
      const auto address = PciAddress::parse(part.substr(4));
      if (address) card.address = *address, addressed = true;
      continue;
    }
    const std::string_view key = text::take(part, '=');
    const auto value = resource(part.substr(0, part.find('(')));
    if (!value) continue;
    if (key == "decodes") card.decodes = *value, ++read;
    if (key == "owns") card.owns = *value, ++read;
    if (key == "locks") card.locks = *value, ++read;
  }
  if (!addressed || read != 3)
    return fail(ErrorCode::Corrupt, "read VGA arbiter", "/dev/vga_arbiter", fmt::format("it says '{}'", text));
  return card;
}

Result<VgaArbiter> VgaArbiter::open(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return fail(VmError::from_os(errno, "open VGA arbiter", file.string()));
  return VgaArbiter(descriptor);
}

VgaArbiter::VgaArbiter(VgaArbiter&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
VgaArbiter& VgaArbiter::operator=(VgaArbiter&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}
VgaArbiter::~VgaArbiter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

/// The arbiter works on a card that is named first, in a write of its own.
Result<void> VgaArbiter::command(PciAddress card, const std::string& text) const {
  const std::string target = "target PCI:" + card.to_string();
  for (const std::string& line : {target, text}) {
    if (line.empty()) continue;
    if (::write(descriptor_, line.data(), line.size()) >= 0) continue;
    if (errno == ENODEV)
      return fail(ErrorCode::NotFound, "ask VGA arbiter about", card.to_string(), "it does not know this card");
    return fail(VmError::from_os(errno, "ask VGA arbiter", "'" + line + "' for " + card.to_string()));
  }
  return {};
}

Result<VgaCard> VgaArbiter::status(PciAddress card) {
  if (auto chosen = command(card, {}); !chosen) return fail(chosen.error());
  std::array<char, 1024> buffer;
  const ssize_t length = ::read(descriptor_, buffer.data(), buffer.size());
  if (length < 0) return fail(VmError::from_os(errno, "read VGA arbiter about", card.to_string()));
  auto read = parse_vga_status({buffer.data(), static_cast<std::size_t>(length)});
  if (read && read->address != card)
    return fail(ErrorCode::NotFound, "read VGA arbiter about", card.to_string(), "it does not know this card");
  return read;
}

Result<void> VgaArbiter::set_decodes(PciAddress card, VgaResource resources) {
  if (auto set = command(card, fmt::format("decodes {}", to_string(resources))); !set) return set;
  const auto now = status(card);
  if (!now) return fail(now.error());
  if (now->decodes != resources) {
    return fail(VmError(ErrorCode::Status, "set VGA decoding of", card.to_string(),
                        fmt::format("asked for {}, it stays {}", to_string(resources), to_string(now->decodes)))
                    .with_hint("the card's driver decides on that itself"));
  }
  return {};
}

Result<void> VgaArbiter::lock(PciAddress card, VgaResource resources) {
  return command(card, fmt::format("lock {}", to_string(resources)));
}
Result<void> VgaArbiter::try_lock(PciAddress card, VgaResource resources) {
  auto locked = command(card, fmt::format("trylock {}", to_string(resources)));
  if (!locked && locked.error().os_error() == EBUSY)
    return fail(ErrorCode::Busy, "lock legacy VGA for", card.to_string(), "another process holds it");
  return locked;
}
Result<void> VgaArbiter::unlock(PciAddress card, VgaResource resources) {
  return command(card, fmt::format("unlock {}", to_string(resources)));
}

}  // namespace vm_platform
