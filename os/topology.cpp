// CPU sets, and telling big cores from little ones.
#include <algorithm>
#include <bit>
#include <charconv>
#include <set>
#include <vm_platform/topology.hpp>

namespace vm_platform {
namespace {

constexpr unsigned kLargestCpu = 1U << 20;  // far beyond any kernel's NR_CPUS; keeps a bad list from eating memory

}  // namespace

void CpuSet::add(unsigned cpu) {
  if (cpu / 64 >= words_.size()) words_.resize(cpu / 64 + 1);
  words_[cpu / 64] |= 1ULL << (cpu % 64);
}

void CpuSet::remove(unsigned cpu) noexcept {
  if (cpu / 64 < words_.size()) words_[cpu / 64] &= ~(1ULL << (cpu % 64));
}

bool CpuSet::contains(unsigned cpu) const noexcept {
  return cpu / 64 < words_.size() && (words_[cpu / 64] >> (cpu % 64) & 1) != 0;
}

std::size_t CpuSet::count() const noexcept {
  std::size_t total = 0;
  for (const std::uint64_t word : words_) total += static_cast<std::size_t>(std::popcount(word));
  return total;
}

std::vector<unsigned> CpuSet::list() const {
  std::vector<unsigned> cpus;
  for (std::size_t i = 0; i < words_.size(); ++i)
    for (std::uint64_t word = words_[i]; word != 0; word &= word - 1)
      cpus.push_back(static_cast<unsigned>(i * 64 + static_cast<std::size_t>(std::countr_zero(word))));
  return cpus;
}

std::string CpuSet::to_string() const {
  std::string text;
  const auto cpus = list();
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t end = i;
    while (end + 1 < cpus.size() && cpus[end + 1] == cpus[end] + 1) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(cpus[i]);
    if (end != i) text += '-' + std::to_string(cpus[end]);
    i = end + 1;
  }
  return text;
}

CpuSet CpuSet::operator&(const CpuSet& other) const {
  CpuSet both;
  both.words_.resize(std::min(words_.size(), other.words_.size()));
  for (std::size_t i = 0; i < both.words_.size(); ++i) both.words_[i] = words_[i] & other.words_[i];
  return both;
}

CpuSet CpuSet::without(const CpuSet& other) const {
  CpuSet rest = *this;
  for (std::size_t i = 0; i < std::min(words_.size(), other.words_.size()); ++i) rest.words_[i] &= ~other.words_[i];
  return rest;
}

bool CpuSet::operator==(const CpuSet& other) const noexcept {
  for (std::size_t i = 0; i < std::max(words_.size(), other.words_.size()); ++i) {
    const std::uint64_t a = i < words_.size() ? words_[i] : 0, b = i < other.words_.size() ? other.words_[i] : 0;
    if (a != b) return false;
  }
  return true;
}

Result<CpuSet> CpuSet::parse(std::string_view list) {
  const std::string_view whole = list;
  const auto bad = [&] {
    return fail(VmError(ErrorCode::InvalidArgument, "read CPU list", "'" + std::string(whole) + "'", "not a list")
                    .with_hint("write it like 0-3,8"));
  };
  while (!list.empty() && (list.back() == '\n' || list.back() == ' ')) list.remove_suffix(1);
  CpuSet set;
  if (list.empty()) return set;
  const char* at = list.data();
  const char* end = at + list.size();
  const auto number = [&](unsigned& value) {
    const auto [next, status] = std::from_chars(at, end, value);
    if (status != std::errc() || value > kLargestCpu) return false;
    at = next;
    return true;
  };
  for (;;) {
    unsigned first = 0, last = 0, used = 1, group = 1;
    if (!number(first)) return bad();
    last = first;
    if (at != end && *at == '-') {
      ++at;
      if (!number(last) || last < first) return bad();
      if (at != end && *at == ':') {  // "used/group": the first `used` of each `group`
        ++at;
        if (!number(used) || at == end || *at != '/') return bad();
        ++at;
        if (!number(group) || group == 0 || used == 0) return bad();
      }
    }
    for (unsigned cpu = first; cpu <= last; ++cpu)
      if ((cpu - first) % group < used) set.add(cpu);
    if (at == end) return set;
    if (*at != ',') return bad();
    ++at;
  }
}

bool classify_by_capacity(std::vector<Cpu>& cpus) {
  std::set<unsigned> values;
  for (const Cpu& cpu : cpus) values.insert(cpu.capacity);
  values.erase(0);  // not told
  double largest = 1.15;
  unsigned little = 0;  // the highest capacity of an efficiency core
  for (auto low = values.begin(), high = low; low != values.end() && ++high != values.end(); ++low) {
    const double ratio = static_cast<double>(*high) / static_cast<double>(*low);
    if (ratio >= largest) {
      largest = ratio;
      little = *low;
    }
  }
  for (Cpu& cpu : cpus)
    cpu.kind = cpu.capacity != 0 && cpu.capacity <= little ? CoreKind::Efficiency : CoreKind::Performance;
  return little != 0;
}

}  // namespace vm_platform
