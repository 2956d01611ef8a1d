// A chat template: compile it and render a conversation with it.
#include "core/text/chat_template.hpp"
#include "core/text/utf8.hpp"
#include "tests/fuzz/fuzz_target.hpp"

#include <boost/json.hpp>

using namespace sluice;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const boost::json::array kMessages = {
      {{"role", "system"}, {"content", "S"}},
      {{"role", "user"}, {"content", "\xC3\xA4 <b>"}},
      {{"role", "assistant"}, {"content", "A"}, {"tool_calls", {{{"name", "f"}, {"arguments", {{"x", 1.5}}}}}}},
  };
  static const boost::json::object kExtra = {{"tools", {{{"name", "f"}, {"parameters", {{"x", nullptr}}}}}}, {"n", 3}};
  const std::string source(reinterpret_cast<const char *>(data), size);
  const auto compiled = text::ChatTemplate::compile(source);
  if (!compiled) return 0;
  text::RenderOptions options;
  options.extra = &kExtra;
  options.bos_token = "<s>";
  options.max_output_bytes = 1 << 20;
  const auto rendered = compiled->render(kMessages, options);
  if (rendered) FUZZ_CHECK(rendered->size() <= options.max_output_bytes);
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {
      std::string(text::ChatTemplate::kChatMl),
      "{%- set ns = namespace(a=[], i=0) -%}{% for m in messages if m.role != 'x' %}{% set ns.i = ns.i + loop.index %}"
      "{% set ns.a = ns.a + [m.role] %}{{ ns.a | join(',') ~ ns.i }}{% else %}none{% endfor %}",
      "{% macro f(x, y=2) %}{{ x[1:-1] }}{% if y > 0 %}{{ f(x, y - 1) }}{% endif %}{% endmacro %}{{ f('abcdef') | "
      "upper }}",
      "{{ tools | tojson(indent=2) }}{{ {'a': [1, 2.5, none, true]} }}{{ 'a,b'.split(',')[-1].strip('b') * n }}",
      "{# c #}{% raw %}{{{% endraw %}{{ '\\u00e4\\n' | trim | replace('a', 'b') | indent(2) }}{{ -7 // 2 ** n % 3 }}",
      "{% if messages[0]['role'] is string and not tools is none %}{{ messages | selectattr('role', 'equalto', 'user') "
      "| map("
      "attribute='content') | list | sort | first | default('d', true) }}{% elif x is defined %}{% endif %}",
      "{% set a, b = 1, (2,) %}{% set c %}x{{ a }}{% endset %}{{ c ~ b }}{% generation %}{{ range(3) | sum }}{% "
      "endgeneration %}"
      "{% for k, v in messages[2].items() %}{% if loop.last %}{% break %}{% endif %}{{ k }}{% endfor %}",
  };
}
