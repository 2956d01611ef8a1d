#include "core/text/jinja/json.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

namespace sluice::text::jinja {
namespace {

Value convert(const boost::json::value &json, uint32_t depth);

Value convert(const boost::json::array &json, uint32_t depth) {
  std::vector<Value> items;
  items.reserve(json.size());
  for (const auto &item : json) items.push_back(convert(item, depth + 1));
  return Value::list(std::move(items));
}

Value convert(const boost::json::object &json, uint32_t depth) {
  Dict dict;
  for (const auto &[key, item] : json) dict.set(std::string(key), convert(item, depth + 1));
  return Value::dict(std::move(dict));
}

Value convert(const boost::json::value &json, uint32_t depth) {
  if (depth > Value::kMaxDepth) fail(fmt::format("the JSON is nested more than {} deep", Value::kMaxDepth));
  switch (json.kind()) {
    case boost::json::kind::null:
      return None();
    case boost::json::kind::bool_:
      return json.get_bool();
    case boost::json::kind::int64:
      return int64_t{json.get_int64()};
    case boost::json::kind::uint64:
      return static_cast<double>(json.get_uint64());  // beyond int64
    case boost::json::kind::double_:
      return json.get_double();
    case boost::json::kind::string:
      return std::string_view(json.get_string().data(), json.get_string().size());
    case boost::json::kind::array:
      return convert(json.get_array(), depth);
    case boost::json::kind::object:
      return convert(json.get_object(), depth);
  }
  return None();
}

class JsonWriter {
 public:
  JsonWriter(int indent, size_t max_bytes, std::string &out) : indent_(indent), max_bytes_(max_bytes), out_(out) {}

  void write(const Value &value, int level) {
    if (out_.size() > max_bytes_) throw Failure{Code::kResourceExhausted, "the JSON text grows too long"};
    if (const auto *s = value.string()) {
      string(*s);
    } else if (const auto *list = value.items()) {
      sequence('[', ']', list->size(), level, [&](size_t i) { write((*list)[i], level + 1); });
    } else if (const auto *dict = value.entries()) {
      sequence('{', '}', dict->all().size(), level, [&](size_t i) {
        string(dict->all()[i].first);
        out_ += ": ";
        write(dict->all()[i].second, level + 1);
      });
    } else if (const auto *b = value.as<bool>()) {
      out_ += *b ? "true" : "false";
    } else if (value.is_none()) {
      out_ += "null";
    } else if (value.is_number()) {
      append_text(value, out_);
    } else {
      fail(fmt::format("tojson cannot write a value of type {}", value.type_name()));
    }
  }

 private:
  template <class WriteItem>
  void sequence(char open, char close, size_t count, int level, const WriteItem &item) {
    out_ += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out_ += indent_ < 0 ? ", " : ",";
      line(level + 1);
      item(i);
    }
    if (count > 0) line(level);
    out_ += close;
  }

  void line(int level) {
    if (indent_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(indent_) * static_cast<size_t>(level), ' ');
  }

  void string(std::string_view text) {
    static constexpr std::string_view kPlain = "\b\f\n\r\t\"\\", kLetter = "bfnrt\"\\";
    out_ += '"';
    for (const char c : text) {
      const size_t known = kPlain.find(c);
      if (known != std::string_view::npos) {
        out_ += '\\';
        out_ += kLetter[known];
      } else if (static_cast<unsigned char>(c) < 0x20) {
        out_ += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      } else {
        out_ += c;
      }
    }
    out_ += '"';
  }

  int indent_;
  size_t max_bytes_;
  std::string &out_;
};

}  // namespace

Value from_json(const boost::json::value &json) { return convert(json, 0); }
Value from_json(const boost::json::array &json) { return convert(json, 0); }
Value from_json(const boost::json::object &json) { return convert(json, 0); }

void append_json(const Value &value, int indent, size_t max_bytes, std::string &out) {
  JsonWriter(indent, max_bytes, out).write(value, 0);
}

}  // namespace sluice::text::jinja
