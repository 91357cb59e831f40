#include "merganser/plan/name_map.h"

#include <algorithm>
#include <map>
#include <utility>

#include "merganser/recipe/layer_name.h"

namespace merganser {
namespace {

using Names = std::vector<std::string>;

// Older names that transformers replaces when it loads a file.
constexpr std::pair<std::string_view, std::string_view> kRenamed[] = {
    {"LayerNorm.gamma", "LayerNorm.weight"},
    {"LayerNorm.beta", "LayerNorm.bias"},
    {".weight_g", ".parametrizations.weight.original0"},
    {".weight_v", ".parametrizations.weight.original1"}};

std::string current_name(const std::string& name) {
  for (const auto& [old, current] : kRenamed) {
    if (name.ends_with(old)) {
      return name.substr(0, name.size() - old.size()) + std::string(current);
    }
  }
  return name;
}

// Returns "bert." of "bert.pooler.dense.weight".
std::string_view first_part(std::string_view name) {
  return name.substr(0, name.find('.') + 1);
}

// The names that a SentenceTransformer in memory has for tensors of modules:
// "2.linear.weight" for "2_Dense/linear.weight", and "0.model.x" or, in older
// versions, "0.auto_model.x" for "x" of the transformer.
class ModuleNames {
 public:
  explicit ModuleNames(const std::set<std::string>& reference) {
    for (const std::string& name : reference) {
      const size_t slash = name.find('/');
      if (slash != std::string::npos) {
        folders_.emplace(
            name.substr(0, name.find('_')) + ".", name.substr(0, slash + 1));
      }
    }
  }

  std::string apply(
      const std::string& name,
      const std::set<std::string>& reference) const {
    if (reference.contains(name)) {
      return name;
    }
    for (const std::string_view transformer : {"0.model.", "0.auto_model."}) {
      if (name.starts_with(transformer)) {
        return name.substr(transformer.size());
      }
    }
    const std::string first(first_part(name));
    const auto folder = folders_.find(first);
    return folder == folders_.end()
        ? name
        : folder->second + name.substr(first.size());
  }

 private:
  std::map<std::string, std::string> folders_; // "2." -> "2_Dense/"
};

// Change of prefix that turns names into the reference's.
struct Prefix {
  std::string removed;
  std::string added;

  std::string apply(
      const std::string& name,
      const std::set<std::string>& reference) const {
    if (!removed.empty()) {
      return name.starts_with(removed) ? name.substr(removed.size()) : name;
    }
    return reference.contains(name) ? name : added + name;
  }
};

// Finds the prefix that either side has more than the other: the one with which
// most names are the reference's, or none.
Prefix find_prefix(const Names& names, const std::set<std::string>& reference) {
  const auto matches = [&](const Prefix& prefix) {
    return std::ranges::count_if(names, [&](const std::string& name) {
      return reference.contains(prefix.apply(name, reference));
    });
  };
  std::set<std::string> removed, added;
  for (const std::string& name : names) {
    removed.emplace(first_part(name));
  }
  for (const std::string& name : reference) {
    added.emplace(first_part(name));
  }
  Prefix best;
  auto most = matches(best);
  const auto try_out = [&](Prefix prefix) {
    const auto found = matches(prefix);
    if (found > most) {
      most = found;
      best = std::move(prefix);
    }
  };
  for (const std::string& prefix : removed) {
    try_out({prefix, ""});
  }
  for (const std::string& prefix : added) {
    try_out({"", prefix});
  }
  return best;
}

bool ends_with_any(std::string_view name, const auto& endings) {
  return std::ranges::any_of(endings, [&](std::string_view ending) {
    return name == ending ||
        (name.ends_with(ending) &&
         name[name.size() - ending.size() - 1] == '.');
  });
}

} // namespace

NameMap::NameMap(const Names& stored, const Names& reference) {
  std::unordered_map<std::string, std::string> originals;
  std::set<std::string> expected;
  for (const std::string& name : reference) {
    std::string current = current_name(name);
    expected.insert(current);
    originals.emplace(std::move(current), name);
  }
  Names current;
  const ModuleNames modules(expected);
  for (const std::string& name : stored) {
    current.push_back(modules.apply(current_name(name), expected));
  }
  const Prefix prefix = find_prefix(current, expected);
  for (size_t i = 0; i < stored.size(); ++i) {
    const std::string name = prefix.apply(current[i], expected);
    if (stored_.emplace(name, stored[i]).second) {
      const auto original = originals.find(name);
      names_.emplace(
          stored[i], original == originals.end() ? name : original->second);
    } else {
      stored_.emplace(stored[i], stored[i]); // two names became one
      names_.emplace(stored[i], stored[i]);
    }
  }
}

const std::string* NameMap::find(const std::string& name) const {
  const auto found = stored_.find(current_name(name));
  return found == stored_.end() ? nullptr : &found->second;
}

const std::string& NameMap::name_of(const std::string& stored) const {
  const auto found = names_.find(stored);
  return found == names_.end() ? stored : found->second;
}

void NameMap::alias(const std::string& name, const std::string& stored) {
  stored_.insert_or_assign(current_name(name), stored);
}

void NameMap::rename(const std::string& name, const std::string& stored) {
  alias(name, stored);
  names_.insert_or_assign(stored, name);
}

Names names_of(const Checkpoint& checkpoint) {
  Names names;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    names.push_back(tensor.name);
  }
  return names;
}

bool is_head_tensor(std::string_view name) {
  constexpr std::string_view kPrefixes[] = {
      // classification, and other tasks on top of an encoder
      "classifier.",
      "pre_classifier.",
      "score.",
      "classification_head.",
      "qa_outputs.",
      "sequence_summary.",
      "logits_proj.",
      // pretraining
      "lm_head.",
      "cls.",
      "head.",
      "predictions.",
      "sop_classifier.",
      "vocab_transform.",
      "vocab_layer_norm.",
      "vocab_projector.",
      "generator_predictions.",
      "generator_lm_head.",
      "discriminator_predictions.",
      "lm_predictions.",
      "mask_predictions.",
      "lm_loss.",
      "pred_layer.",
      "embed_out."};
  return name == "decoder.weight" || name == "decoder.bias" || // ModernBERT
      std::ranges::any_of(kPrefixes, [&](std::string_view prefix) {
           return name.starts_with(prefix);
         });
}

bool is_pooler_tensor(std::string_view name) {
  return name.starts_with("pooler.") ||
      name.find(".pooler.") != std::string_view::npos;
}

bool is_constant_tensor(const TensorInfo& tensor) {
  constexpr std::string_view kNames[] = {
      "position_ids",
      "token_type_ids",
      "inv_freq",
      "masked_bias",
      "cos_cached",
      "sin_cached",
      "relative_position_index",
      "EncDecAttention.relative_attention_bias.weight"}; // T5 does not use it
  constexpr std::string_view kMasks[] = {
      "attn.bias", "attention.bias", "crossattention.bias", "causal_mask"};
  const std::vector<int64_t>& shape = tensor.shape;
  return ends_with_any(tensor.name, kNames) ||
      (ends_with_any(tensor.name, kMasks) && shape.size() == 4 &&
       shape[0] == 1 && shape[1] == 1 && shape[2] == shape[3]);
}

bool is_linear_weight(const TensorInfo& tensor) {
  const std::string& name = tensor.name;
  constexpr std::string_view kTables[] = {
      "shared.weight", "relative_attention_bias.weight"}; // of T5
  return tensor.shape.size() == 2 && name.ends_with("weight") &&
      !is_before_layers(name) && !ends_with_any(name, kTables);
}

bool is_spectral(const TensorInfo& tensor) {
  return is_linear_weight(tensor) && !is_head_tensor(tensor.name);
}

bool may_be_tied(std::string_view a, std::string_view b) {
  constexpr std::string_view kTables[] = {
      "word_embeddings.weight",
      "word_embedding.weight",
      "embed_tokens.weight",
      "tok_embeddings.weight",
      "embed_in.weight",
      "wte.weight",
      "shared.weight",
      "transformer.embeddings.weight",
      "backbone.embeddings.weight",
      "lm_head.weight",
      "lm_head.decoder.weight",
      "predictions.decoder.weight",
      "generator_lm_head.weight",
      "vocab_projector.weight",
      "embed_out.weight",
      "lm_loss.weight",
      "pred_layer.proj.weight",
      "proj_out.weight"};
  if (ends_with_any(a, kTables) && ends_with_any(b, kTables)) {
    return true;
  }
  constexpr std::string_view kDecoder = ".decoder.bias";
  const auto is_pair = [&](std::string_view inner, std::string_view outer) {
    return inner.ends_with(kDecoder) && outer.ends_with(".bias") &&
        inner.substr(0, inner.size() - kDecoder.size()) ==
        outer.substr(0, outer.size() - std::string_view(".bias").size());
  };
  return is_pair(a, b) || is_pair(b, a);
}

} // namespace merganser
