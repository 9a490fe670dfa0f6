#include "iso/testing/test_image.hpp"

#include <algorithm>

namespace vm_platform::iso::testing {
namespace {
std::string number(std::uint32_t value, std::size_t size, bool big) {
  std::string bytes;
  for (std::size_t i = 0; i < size; ++i) {
    bytes += static_cast<char>(static_cast<unsigned char>(value >> (8 * (big ? size - 1 - i : i))));
  }
  return bytes;
}
constexpr std::string_view kTime("\x7C\x05\x11\x0C\x1E\x0F\x08", 7);  // 2024-05-17 12:30:15 +02:00
}  // namespace

std::string le16(std::uint32_t v) { return number(v, 2, false); }
std::string le32(std::uint32_t v) { return number(v, 4, false); }
std::string be32(std::uint32_t v) { return number(v, 4, true); }
std::string both16(std::uint32_t v) { return number(v, 2, false) + number(v, 2, true); }
std::string both32(std::uint32_t v) { return le32(v) + be32(v); }
std::string utf16be(std::u16string_view text) {
  std::string bytes;
  for (const char16_t c : text) bytes += number(c, 2, true);
  return bytes;
}

std::string field(std::string_view signature, std::string_view data, std::uint8_t version) {
  return std::string(signature) + static_cast<char>(data.size() + 4) + static_cast<char>(version) + std::string(data);
}
std::string sp(std::uint8_t skip) { return field("SP", std::string("\xBE\xEF") + static_cast<char>(skip)); }
std::string er() { return field("ER", std::string("\x0A\x00\x00\x01", 4) + "RRIP_1991A"); }
std::string px(std::uint32_t mode, std::uint32_t links, std::uint32_t uid, std::uint32_t gid) {
  return field("PX", both32(mode) + both32(links) + both32(uid) + both32(gid));
}
std::string nm(std::string_view name, std::uint8_t flags) {
  return field("NM", std::string(1, static_cast<char>(flags)) + std::string(name));
}
std::string ce(std::uint32_t block, std::uint32_t offset, std::uint32_t size) {
  return field("CE", both32(block) + both32(offset) + both32(size));
}
std::string sl(std::string_view components, std::uint8_t flags) {
  return field("SL", std::string(1, static_cast<char>(flags)) + std::string(components));
}
std::string sl_component(std::string_view text, std::uint8_t flags) {
  return std::string(1, static_cast<char>(flags)) + static_cast<char>(text.size()) + std::string(text);
}
std::string zf(std::uint32_t size, std::uint8_t log2) {
  return field("ZF", std::string("pz\x04") + static_cast<char>(log2) + both32(size));
}

std::string record_bytes(const TestRecord& r) {
  std::string b(1, '\0');
  b += static_cast<char>(r.extended_attribute_blocks);
  b += both32(r.block) + both32(r.size);
  b += kTime;
  b += static_cast<char>(r.flags);
  b += static_cast<char>(r.unit);
  b += static_cast<char>(r.gap);
  b += both16(1);
  b += static_cast<char>(r.identifier.size());
  b += r.identifier;
  if (r.identifier.size() % 2 == 0) b += '\0';
  b += r.system_use;
  if (b.size() % 2 != 0) b += '\0';
  b[0] = static_cast<char>(b.size());
  return b;
}

std::uint32_t TestImage::allocate(std::uint32_t size) {
  const auto block = static_cast<std::uint32_t>(bytes_.size() / block_size_);
  const std::uint32_t sectors = std::max(1u, (size + 2047) / 2048);
  bytes_.resize(bytes_.size() + std::size_t{sectors} * 2048);
  return block;
}

void TestImage::put(std::uint64_t offset, std::string_view data) {
  if (bytes_.size() < offset + data.size()) bytes_.resize(offset + data.size());
  std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
}

std::uint32_t TestImage::add_file(std::string_view content) {
  const std::uint32_t block = allocate(static_cast<std::uint32_t>(content.size()));
  put(std::uint64_t{block} * block_size_, content);
  return block;
}

std::uint32_t TestImage::add_directory(const std::vector<TestRecord>& records, std::string_view dot_system_use,
                                       std::uint32_t parent) {
  const auto self = static_cast<std::uint32_t>(bytes_.size() / block_size_);
  std::string bytes;
  const auto lay_out = [&](std::uint32_t size) {
    bytes.clear();
    std::vector<TestRecord> all{{std::string(1, '\0'), self, size, 2, std::string(dot_system_use)},
                                {std::string(1, '\1'), parent == 0 ? self : parent, 2048, 2}};
    all.insert(all.end(), records.begin(), records.end());
    for (const TestRecord& record : all) {
      const std::string one = record_bytes(record);
      const std::size_t left = 2048 - bytes.size() % 2048;
      if (one.size() > left) bytes.append(left, '\0');
      bytes += one;
    }
    bytes.append((2048 - bytes.size() % 2048) % 2048, '\0');
  };
  lay_out(2048);
  directory_size_ = static_cast<std::uint32_t>(bytes.size());
  lay_out(directory_size_);
  return add_file(bytes);
}

std::string TestImage::descriptor(char type, char version, std::uint32_t root, std::uint32_t root_size) const {
  std::string d(2048, '\0');
  const auto at = [&](std::size_t offset, std::string_view data) { d.replace(offset, data.size(), data); };
  d[0] = type;
  at(1, "CD001");
  d[6] = version;
  at(8, std::string(64, ' '));
  at(80, both32(static_cast<std::uint32_t>(bytes_.size() / block_size_)));
  at(120, both16(1));
  at(124, both16(1));
  at(128, both16(block_size_));
  at(156, record_bytes({std::string(1, '\0'), root, root_size, 2}));
  at(190, std::string(623, ' '));
  at(813, "2024051712301599");
  at(830, "2024051712301500");
  at(847, "0000000000000000");
  at(864, "0000000000000000");
  d[881] = 1;
  return d;
}

void TestImage::add_descriptor(std::string_view sector) { put(std::uint64_t{2048} * next_descriptor_++, sector); }

void TestImage::add_primary(std::uint32_t root, std::uint32_t root_size, std::string_view volume_id) {
  std::string d = descriptor(1, 1, root, root_size);
  d.replace(40, volume_id.size(), volume_id);
  add_descriptor(d);
}

void TestImage::add_joliet(std::uint32_t root, std::uint32_t root_size, char level) {
  std::string d = descriptor(2, 1, root, root_size);
  d.replace(88, 3, std::string("%/") + level);
  add_descriptor(d);
}

void TestImage::add_enhanced(std::uint32_t root, std::uint32_t root_size) {
  add_descriptor(descriptor(2, 2, root, root_size));
}

void TestImage::add_boot_record(std::uint32_t catalog_block) {
  std::string d(2048, '\0');
  d.replace(1, 6, "CD001\x01");
  d.replace(7, 23, "EL TORITO SPECIFICATION");
  d.replace(71, 4, le32(catalog_block));
  add_descriptor(d);
}

void TestImage::add_terminator() {
  std::string d(2048, '\0');
  d.replace(0, 7,
            "\xFF"
            "CD001\x01");
  add_descriptor(d);
}

std::vector<char> TestImage::as_raw_sectors(std::uint8_t mode) const {
  std::vector<char> out;
  for (std::size_t sector = 0; sector * 2048 < bytes_.size(); ++sector) {
    std::string raw(2352, '\0');
    raw.replace(1, 10, std::string(10, '\xFF'));
    raw[15] = static_cast<char>(mode);
    const std::size_t size = std::min<std::size_t>(2048, bytes_.size() - sector * 2048);
    raw.replace(mode == 1 ? 16 : 24, size, std::string_view(bytes_.data() + sector * 2048, size));
    out.insert(out.end(), raw.begin(), raw.end());
  }
  return out;
}

}  // namespace vm_platform::iso::testing
