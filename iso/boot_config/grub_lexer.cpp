#include "iso/boot_config/grub_lexer.hpp"

#include <algorithm>

namespace vm_platform::iso {
namespace {
bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }
}  // namespace

GrubTokens lex_grub(std::string_view script, std::size_t limit) {
  GrubTokens tokens;
  std::size_t at = 0;
  while (at < script.size() && tokens.size() < limit) {
    const char c = script[at];
    if (is_blank(c)) {
      ++at;
    } else if (c == '#') {
      at = std::min(script.find('\n', at), script.size());
    } else if (c == '\\' && at + 1 < script.size() && script[at + 1] == '\n') {
      at += 2;
    } else if (c == '\n' || c == ';') {
      if (tokens.empty() || tokens.back().kind != GrubToken::Kind::End) tokens.push_back({GrubToken::Kind::End, ""});
      ++at;
    } else if (c == '{' || c == '}') {
      tokens.push_back({c == '{' ? GrubToken::Kind::Open : GrubToken::Kind::Close, ""});
      ++at;
    } else {
      std::string word;
      char quote = 0;
      while (at < script.size()) {
        const char d = script[at];
        if (d == '\\' && quote != '\'' && at + 1 < script.size()) {
          if (script[at + 1] != '\n') word += script.substr(at, 2);
          at += 2;
          continue;
        }
        if (quote != 0) {
          if (d == quote) quote = 0;
        } else if (d == '\'' || d == '"') {
          quote = d;
        } else if (d == '$' && at + 1 < script.size() && script[at + 1] == '{') {
          const std::size_t close = std::min(script.find('}', at), script.size() - 1);
          word += script.substr(at, close - at + 1);
          at = close + 1;
          continue;
        } else if (is_blank(d) || d == '\n' || d == ';' || d == '{' || d == '}') {
          break;
        }
        word += d;
        ++at;
      }
      tokens.push_back({GrubToken::Kind::Word, std::move(word)});
    }
  }
  return tokens;
}

void expand_grub(std::string_view raw, const std::function<std::string_view(std::string_view)>& value_of,
                 std::size_t limit, std::vector<std::string>& words) {
  std::string word;
  bool any = false;  // a quoted empty word is one
  char quote = 0;
  for (std::size_t at = 0; at < raw.size() && word.size() < limit && words.size() < kMaxGrubWords; ++at) {
    const char c = raw[at];
    if (quote == '\'') {
      if (c == '\'') {
        quote = 0;
      } else {
        word += c;
      }
    } else if (c == '\\' && at + 1 < raw.size()) {
      // Within double quotes a backslash quotes only what would be special there.
      const char next = raw[++at];
      if (quote == '"' && next != '"' && next != '\\' && next != '$') word += '\\';
      word += next;
    } else if (c == '"' || (c == '\'' && quote == 0)) {
      quote = quote == 0 ? c : '\0';
      any = true;
    } else if (c == '$' && at + 1 < raw.size()) {
      std::string_view name;
      if (raw[at + 1] == '{') {
        const std::size_t close = std::min(raw.find('}', at), raw.size());
        name = raw.substr(at + 2, close - std::min(close, at + 2));
        at = close;
      } else {
        std::size_t end = at + 1;
        while (end < raw.size() && is_name(raw[end])) ++end;
        if (end == at + 1) {
          word += c;
          continue;
        }
        name = raw.substr(at + 1, end - at - 1);
        at = end - 1;
      }
      for (const char v : value_of(name)) {
        if (words.size() >= kMaxGrubWords) break;
        if (quote == 0 && is_blank(v)) {
          if (!word.empty() || any) words.push_back(std::move(word));
          word.clear();
          any = false;
        } else if (word.size() < limit) {
          word += v;
        }
      }
    } else {
      word += c;
    }
  }
  if (!word.empty() || any) words.push_back(std::move(word));
}

}  // namespace vm_platform::iso
