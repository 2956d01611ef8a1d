// One token per step: no drafts, no branches. needs() stays all zeros, which says just that.
#include <sluice/sdk/decoder.hpp>

namespace {
using namespace sluice::sdk;

struct Nothing {};

class Plain final : public Decoder<Nothing> {
 public:
  Plain(const sluice_host_api &, const Config &, const sluice_decoder_setup &) {}
  Nothing open(const sluice_seq_start &, const Config &) override { return {}; }
};
}  // namespace

SLUICE_DECODER_PLUGIN(Plain, "plain", "0.1.0", kNoFields);
