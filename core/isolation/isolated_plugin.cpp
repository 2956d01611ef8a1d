#include "core/isolation/isolated_plugin.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

namespace sluice::isolation {
namespace {

constexpr size_t kMaxPlugins = 64;
constexpr uint32_t kMaxFields = 1024;
constexpr std::chrono::milliseconds kLoadTime{30'000};  // for starting the process and loading the library

/// By number; kept for good, as loaded libraries are.
std::array<std::shared_ptr<IsolatedPlugin>, kMaxPlugins> &plugins() {
  static auto *all = new std::array<std::shared_ptr<IsolatedPlugin>, kMaxPlugins>;
  return *all;
}

template <size_t N> void fill_entries(IsolatedPlugin &plugin) {
  plugin.backend.enumerate = [](const sluice_host_api *api, const sluice_config *config, sluice_device_info *out,
                                uint32_t stride, uint32_t *n, sluice_status *st) {
    return enumerate_isolated(*plugins()[N], api, config, out, stride, n, st);
  };
  plugin.backend.open = [](const sluice_host_api *api, const sluice_backend_open *open, sluice_backend **out,
                           sluice_status *st) { return open_isolated_backend(*plugins()[N], api, open, out, st); };
  plugin.engine.open = [](const sluice_host_api *api, const sluice_config *config, const char *model,
                          sluice_engine **out, sluice_status *st) {
    return open_isolated_engine(*plugins()[N], api, config, model, out, st);
  };
}

template <size_t... N> void fill_numbered(size_t number, IsolatedPlugin &plugin, std::index_sequence<N...>) {
  ((number == N ? fill_entries<N>(plugin) : void()), ...);
}

/// A text of the reply that stays, or null.
const char *keep(IsolatedPlugin &plugin, Unpacker &reader) {
  const bool there = reader.get<uint32_t>() != 0;
  std::string text = reader.text();
  if (!there) return nullptr;
  plugin.texts.push_back(std::move(text));
  return plugin.texts.back().c_str();
}

Result<> read_description(IsolatedPlugin &plugin, const plugin::Metadata &metadata, Unpacker &reader) {
  const auto kinds = reader.get<uint64_t>();
  plugin.has_warmup = reader.get<uint32_t>() != 0;
  plugin.texts.reserve(4 * kMaxFields + 3);  // pointers into it stay
  plugin.texts = {metadata.name, metadata.version};
  plugin.texts.push_back(reader.text());
  const auto n = reader.get<uint32_t>();
  if (kinds != metadata.kinds || n > kMaxFields) reader.fail();
  for (uint32_t i = 0; i < n && reader.ok(); ++i) {
    sluice_config_field field{};
    field.struct_size = SLUICE_SIZE_THROUGH(sluice_config_field, max);
    reader.value(field.type), reader.value(field.flags), reader.value(field.min), reader.value(field.max);
    field.key = keep(plugin, reader), field.doc = keep(plugin, reader);
    field.def = keep(plugin, reader), field.choices = keep(plugin, reader);
    plugin.fields.push_back(field);
  }
  if (!reader.ok()) return Error{Code::kInternal, plugin.who + ": its process described it in a way that makes no sense", {}};
  return {};
}

}  // namespace

Result<> fill_tables(const std::shared_ptr<IsolatedPlugin> &plugin) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  size_t number = 0;
  while (number < kMaxPlugins && plugins()[number] != nullptr) ++number;
  if (number == kMaxPlugins)
    return Error{Code::kResourceExhausted, fmt::format("more than {} plugins in processes of their own", kMaxPlugins), {}};
  plugins()[number] = plugin;
  plugin->backend.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_vtbl, health);
  plugin->engine.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_vtbl, health);
  fill_backend(plugin->backend, plugin->has_warmup);
  fill_engine(plugin->engine);
  fill_numbered(number, *plugin, std::make_index_sequence<kMaxPlugins>());
  return {};
}

Result<std::unique_ptr<Remote>> IsolatedPlugin::start(const sluice_host_api *api) const {
  auto process = PluginProcess::start(options.program.empty() ? plugin_host_program() : options.program, who);
  if (!process) return process.error();
  PluginProcess &child = **process;
  auto remote = std::make_unique<Remote>(who, std::move(*process), api, options.times);
  Packer hello;
  hello.value(kProtocol);
  hello.text(path);
  Reply reply;
  sluice_status st{};
  st.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  if (const int32_t code = remote->call(Call::kHello, hello, reply, &st, std::max(options.times.call, kLoadTime)); code != SLUICE_OK)
    return Error{code > 0 && code <= SLUICE_E_ABI ? static_cast<Code>(code) : Code::kInternal, std::string(st.msg), {}};
  child.expect_heartbeat();
  remote->set_hello(std::move(reply));
  return remote;
}

Result<plugin::Library> load_isolated(const std::string &path, const plugin::Metadata &metadata,
                                      const IsolationOptions &options) {
  if (auto r = plugin::check_abi(metadata); !r) return r.error();
  if (auto r = plugin::check_cpu(metadata); !r) return r.error();
  constexpr uint64_t kIsolatable = SLUICE_KIND_BACKEND | SLUICE_KIND_ENGINE;
  if ((metadata.kinds & kIsolatable) == 0)
    return Error{Code::kUnsupported, fmt::format("{} {} cannot live in a process of its own; only backends and engines can",
                                                 plugin::kind_names(metadata.kinds), metadata.name), {}};
  auto plugin = std::make_shared<IsolatedPlugin>();
  plugin->path = path;
  plugin->who = plugin::kind_names(metadata.kinds) + " " + metadata.name;
  plugin->options = options;
  {
    auto remote = plugin->start(nullptr);
    if (!remote) return remote.error();
    Reply hello = (*remote)->take_hello();
    if (auto r = read_description(*plugin, metadata, hello.results); !r) return r.error();
    (*remote)->close(kCloseTime);
  }
  if (auto r = fill_tables(plugin); !r) return r.error();
  sluice_plugin_desc &desc = plugin->desc;
  desc.struct_size = SLUICE_SIZE_THROUGH(sluice_plugin_desc, shutdown);
  desc.abi_major = metadata.abi_major, desc.abi_minor_built = metadata.abi_minor_built;
  desc.abi_minor_min = metadata.abi_minor_min;
  desc.kinds = metadata.kinds & kIsolatable;
  desc.name = plugin->texts[0].c_str(), desc.version = plugin->texts[1].c_str();
  desc.license = plugin->texts[2].empty() ? nullptr : plugin->texts[2].c_str();
  desc.fields = plugin->fields.data(), desc.n_fields = static_cast<uint32_t>(plugin->fields.size());
  desc.field_stride = sizeof(sluice_config_field);
  if ((desc.kinds & SLUICE_KIND_BACKEND) != 0) desc.backend = &plugin->backend;
  if ((desc.kinds & SLUICE_KIND_ENGINE) != 0) desc.engine = &plugin->engine;

  plugin::Library library{path, metadata, &desc, nullptr};
  auto schema = plugin::Schema::create(plugin->who, desc.fields, desc.n_fields, desc.field_stride);
  if (!schema) return schema.error();
  library.schema = std::make_shared<const plugin::Schema>(std::move(*schema));
  return library;
}

}  // namespace sluice::isolation
