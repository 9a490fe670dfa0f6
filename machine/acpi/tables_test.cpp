// The tables as ACPI's own compiler reads them.
#include "machine/acpi/tables.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "machine/acpi/aml.hpp"
#include "machine/memory_map.hpp"

namespace vm_platform::acpi {
namespace {

struct TablesTest : testing::Test {
  TablesTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vmp-acpi-XXXXXX").string();
    folder = ::mkdtemp(pattern.data());
  }
  ~TablesTest() override { std::filesystem::remove_all(folder); }

  static std::string name(const PlacedTable& table) {
    return {reinterpret_cast<const char*>(table.bytes.data()), 4};  // NOLINT: bytes are text here
  }
  /// What iasl says of a table: its own messages and the text it makes of the table.
  std::string disassemble(const PlacedTable& table) const {
    const auto file = folder / (name(table) + ".dat");
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(table.bytes.data()), static_cast<std::streamsize>(table.bytes.size()));
    const std::string messages = run("iasl -d " + file.string());
    return messages + slurp(folder / (name(table) + ".dsl"));
  }
  static std::string slurp(const std::filesystem::path& file) {
    std::stringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
  }
  static std::string run(const std::string& command) {
    std::string output;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    std::array<char, 4096> part{};
    while (const std::size_t count = std::fread(part.data(), 1, part.size(), pipe)) output.append(part.data(), count);
    EXPECT_EQ(::pclose(pipe), 0) << command << "\n" << output;
    return output;
  }
  static void expect_lines(const std::string& text, std::initializer_list<const char*> lines) {
    for (const char* line : lines) EXPECT_NE(text.find(line), std::string::npos) << line;
  }
  std::filesystem::path folder;
};

TEST_F(TablesTest, ChecksumsLengthsAndPlaces) {
  const auto tables = build_tables({.cpus = 512, .pci_window64 = 64 * kGiB});
  ASSERT_EQ(tables.size(), 7u);
  std::uint64_t end = 0;
  for (const PlacedTable& table : tables) {
    if (name(table) == "RSD " || name(table) == "FACS") {
      EXPECT_GE(table.address, Gpa(map::kBiosArea));
      continue;
    }
    const auto sum = std::accumulate(table.bytes.begin(), table.bytes.end(), 0u);
    EXPECT_EQ(sum & 0xff, 0u) << name(table);
    std::uint32_t length = 0;
    std::memcpy(&length, table.bytes.data() + 4, 4);
    EXPECT_EQ(length, table.bytes.size()) << name(table);
    EXPECT_GE(table.address.value, std::max(end, map::kAcpiTables)) << name(table);
    end = table.address.value + table.bytes.size();
    EXPECT_LE(end, map::kBiosArea) << name(table);
  }
  const auto& root = tables.front().bytes;
  EXPECT_EQ(std::accumulate(root.begin(), root.begin() + 20, 0u) & 0xff, 0u);
  EXPECT_EQ(std::accumulate(root.begin(), root.end(), 0u) & 0xff, 0u);
}

TEST_F(TablesTest, IaslReadsEachOfThem) {
  for (const PlacedTable& table : build_tables({.cpus = 2, .pci_window64 = 64 * kGiB})) {
    if (name(table) == "RSD ") continue;
    const std::string text = disassemble(table);
    for (const char* complaint : {"Error", "Warning", "rror:", "nvalid checksum", "Unknown", "Bad "})
      EXPECT_EQ(text.find(complaint), std::string::npos) << name(table) << ": " << complaint << "\n" << text;
    if (name(table) == "FACP")
      expect_lines(text, {"8042 Present on ports 60/64 (V2) : 0", "Reset Register Supported (V2) : 1",
                          "Hardware Reduced (V5) : 0", "32-bit PM Timer (V1) : 1", "Value to cause reset : 06",
                          "SCI Interrupt : 0009"});
    if (name(table) == "APIC")
      expect_lines(text,
                   {"Local Apic ID : 01", "I/O Apic ID : 00", "Interrupt : 00000002", "Interrupt Source Override"});
    if (name(table) == "MCFG") expect_lines(text, {"Base Address : 00000000E0000000", "End Bus Number : FF"});
  }
}

TEST_F(TablesTest, TheDsdtCompilesAgain) {
  const auto tables = build_tables({.cpus = 1, .pci_window64 = 64 * kGiB});
  const auto dsdt = std::ranges::find_if(tables, [](const auto& table) { return name(table) == "DSDT"; });
  const std::string text = disassemble(*dsdt);
  expect_lines(text, {"Name (\\_S5", "EisaId (\"PNP0A08\")", "EisaId (\"PNP0501\")", "EisaId (\"PNP0B00\")",
                      "\"QEMU0001\"", "EisaId (\"PNP0C02\")", "Method (_PRT, 0", "0x0505"});
  const std::string compiled = run("iasl -p " + (folder / "again").string() + " " + (folder / "DSDT.dsl").string());
  EXPECT_NE(compiled.find("0 Errors, 0 Warnings"), std::string::npos) << compiled;
}

TEST_F(TablesTest, ManyCpusHaveX2apicEntries) {
  for (const PlacedTable& table : build_tables({.cpus = 300, .pci_window64 = 64 * kGiB})) {
    if (name(table) != "APIC") continue;
    expect_lines(disassemble(table), {"Processor x2Apic ID : 0000012B", "Local x2APIC NMI"});
  }
}

TEST(AmlTest, EncodesAsTheSpecificationShows) {
  using namespace aml;
  EXPECT_EQ(eisa_id("PNP0A08"), (Bytes{0x0c, 0x41, 0xd0, 0x0a, 0x08}));
  EXPECT_EQ(integer(0), Bytes{0x00});
  EXPECT_EQ(integer(0x1234), (Bytes{0x0b, 0x34, 0x12}));
  EXPECT_EQ(name("AB", integer(1)), (Bytes{0x08, 'A', 'B', '_', '_', 0x01}));
  // Package lengths of one, two and three bytes (20.2.4).
  EXPECT_EQ(scope("ABCD", Bytes(58)).size(), 1u + 1 + 4 + 58);
  EXPECT_EQ(scope("ABCD", Bytes(59)).size(), 1u + 2 + 4 + 59);
  EXPECT_EQ(scope("ABCD", Bytes(4089)).size(), 1u + 2 + 4 + 4089);
  const Bytes large = scope("ABCD", Bytes(4090));
  EXPECT_EQ(large.size(), 1u + 3 + 4 + 4090);
  EXPECT_EQ(large[1], 0x80 | (4097 & 15));
}

}  // namespace
}  // namespace vm_platform::acpi
