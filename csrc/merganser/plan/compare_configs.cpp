#include "merganser/plan/compare_configs.h"

#include <algorithm>
#include <map>
#include <string_view>

namespace merganser {
namespace {

using nlohmann::json;

bool is_in(const auto& names, std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

// Names by which architectures call one value; the first is that of BERT.
struct Alias {
  std::string_view name, also;
};
constexpr Alias kAliases[] = {
    {"hidden_size", "d_model"},
    {"hidden_size", "dim"},
    {"hidden_size", "emb_dim"},
    {"hidden_size", "embed_dim"},
    {"hidden_size", "n_embd"},
    {"hidden_size", "n_embed"},
    {"intermediate_size", "ffn_hidden_size"},
    {"layer_norm_eps", "layer_norm_epsilon"},
    {"max_position_embeddings", "max_seq_len"},
    {"max_position_embeddings", "n_positions"},
    {"num_attention_heads", "n_head"},
    {"num_attention_heads", "n_heads"},
    {"num_attention_heads", "num_heads"},
    {"num_experts", "n_routed_experts"},
    {"num_experts", "num_local_experts"},
    {"num_hidden_layers", "n_layer"},
    {"num_hidden_layers", "n_layers"},
    {"num_hidden_layers", "num_layers"},
    {"num_key_value_heads", "n_head_kv"},
    {"num_key_value_heads", "num_kv_heads"},
    {"pad_token_id", "pad_index"},
    {"vocab_size", "n_token"},
    {"vocab_size", "n_words"},
    // transformers 5 has all values of rotary embeddings in one object.
    {"rope_parameters.partial_rotary_factor", "partial_rotary_factor"},
    {"rope_parameters.partial_rotary_factor", "rotary_pct"},
    {"rope_parameters.rope_theta", "rope_theta"},
    {"rope_parameters.rope_theta", "rotary_emb_base"},
};

// Keys that give tensors their meaning, besides those of rotary embeddings.
constexpr std::string_view kRefused[] = {
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "head_dim",
    "d_head",
    "d_kv",
    "intermediate_size",
    "d_ff",
    "d_inner",
    "ffn_dim",
    "hidden_dim",
    "n_inner",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "num_hidden_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "num_attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_key_value_heads",
    "num_experts",
    "num_experts_per_tok",
    "max_position_embeddings",
    "type_vocab_size",
    "position_embedding_type",
    "position_buckets",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "rotary_dim",
    "layer_types",
    "layer_norm_eps",
    "norm_eps",
    "rms_norm_eps",
    "pad_token_id",
};

// Architectures that number positions from pad_token_id; for others it only
// marks the end of texts.
constexpr std::string_view kPositionsFromPadding[] = {
    "altclip_text_model",
    "bridgetower_text_model",
    "camembert",
    "clap_text_model",
    "data2vec-text",
    "esm",
    "evolla",
    "fsmt",
    "ibert",
    "kosmos_2_text_model",
    "kosmos_2_5_text_model",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "m2m_100",
    "markuplm",
    "mpnet",
    "nllb-moe",
    "prophetnet",
    "roberta",
    "roberta-prelayernorm",
    "seamless_m4t",
    "seamless_m4t_v2",
    "speech_to_text",
    "speecht5",
    "trocr",
    "xlm-prophetnet",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
};

// Names of activation functions, which have these values.
constexpr std::string_view kActivationKeys[] = {
    "activation",
    "activation_function",
    "dense_act_fn",
    "feed_forward_proj",
    "ff_activation",
    "hidden_act",
    "hidden_activation",
};

// Names that transformers has for one function, up to rounding.
constexpr Alias kActivations[] = {
    {"gelu", "gelu_python"},
    {"gelu_new", "gelu_accurate"},
    {"gelu_new", "gelu_fast"},
    {"gelu_new", "gelu_python_tanh"},
    {"gelu_new", "gelu_pytorch_tanh"},
    {"linear", "identity"},
    {"silu", "swish"},
};

constexpr Alias kRopeTypes[] = {{"default", "mrope"}, {"longrope", "su"}};

// Keys without influence on the merged model's function: about one training,
// one version of transformers or the outputs of a call. Those of the classes
// are compared by check_configs.
constexpr std::string_view kHarmless[] = {
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "init_std",
    "initializer_cutoff_factor",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pretraining_tp",
    "problem_type",
    "quantization_config",
    "reference_compile",
    "return_dict",
    "router_aux_loss_coef",
    "task_specific_params",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
};

bool is_harmless(std::string_view key) {
  const auto contains = [&](std::string_view part) {
    return key.find(part) != key.npos;
  };
  return is_in(kHarmless, key) || contains("dropout") || contains("pdrop") ||
      contains("layerdrop");
}

std::string first_name(const auto& aliases, const std::string& name) {
  const auto found = std::ranges::find(aliases, name, &Alias::also);
  return std::string(found == std::end(aliases) ? name : found->name);
}

struct Value {
  std::string key; // in the file
  json value;
};
using Values = std::map<std::string, Value>; // by the first name

// Value of a key as compared: one for each function.
json unified(std::string_view name, const json& value) {
  if (!value.is_string()) {
    return value;
  }
  if (is_in(kActivationKeys, name)) {
    return first_name(kActivations, value);
  }
  return name == "rope_type" ? json(first_name(kRopeTypes, value)) : value;
}

// Values of rope_scaling, or rope_parameters, which may have one object for
// each type of layer.
void read_rope(
    const json& rope,
    const std::string& name,
    const std::string& key,
    Values& values) {
  for (const auto& [inner, value] : rope.items()) {
    if (value.is_object()) {
      read_rope(value, name + inner + ".", key + inner + ".", values);
    } else {
      const std::string own = inner == "type" ? "rope_type" : inner;
      values.emplace(name + own, Value{key + inner, value});
    }
  }
}

void read_values(
    const json& config,
    const std::string& prefix,
    Values& values) {
  bool by_layer_type = false;
  for (const auto& [key, value] : config.items()) {
    if (is_harmless(key)) {
      continue;
    }
    if (value.is_object() &&
        (key == "rope_parameters" || key == "rope_scaling")) {
      read_rope(value, prefix + "rope_parameters.", prefix + key + ".", values);
      by_layer_type |= std::ranges::any_of(
          value, [](const json& item) { return item.is_object(); });
    } else if (
        value.is_object() &&
        (key.ends_with("_config") || value.contains("model_type"))) {
      read_values(value, prefix + key + ".", values);
    } else if (key != "rope_scaling" && key != "rope_parameters") {
      values.emplace(
          prefix + first_name(kAliases, key), Value{prefix + key, value});
    }
  }
  if (!by_layer_type) {
    values.emplace(
        prefix + "rope_parameters.rope_type", Value{"rope_type", "default"});
  }
}

bool has_meaning(std::string_view last) {
  return is_in(kRefused, last) || is_in(kActivationKeys, last);
}

bool gives_meaning(const std::string& name, std::string_view last) {
  return name == "model_type" || has_meaning(last) ||
      name.find("rope_parameters.") != name.npos;
}

std::string last_part(const std::string& name) {
  return name.substr(name.rfind('.') + 1);
}

// True for values that differ between models of one base, too: the padding that
// a training chose, and a length of which a table of positions has the shape.
bool is_free(
    const std::string& name,
    std::string_view last,
    const Values& values) {
  if (last == "pad_token_id") {
    const std::string prefix = name.substr(0, name.size() - last.size());
    const auto type = values.find(prefix + "model_type");
    return type != values.end() && type->second.value.is_string() &&
        !is_in(kPositionsFromPadding,
               type->second.value.get_ref<const std::string&>());
  }
  return last == "max_position_embeddings";
}

bool is_depth(std::string_view last, const json& value) {
  return last == "num_hidden_layers" ||
      (value.is_array() && last.find("layer") != last.npos);
}

// Values with a meaning that `other` lacks.
std::vector<Value> lacking(
    const Values& values,
    const Values& other,
    bool any_depth) {
  std::vector<Value> found;
  for (const auto& [name, value] : values) {
    const std::string last = last_part(name);
    if (!other.contains(name) && has_meaning(last) && !value.value.is_null() &&
        !(any_depth && is_depth(last, value.value))) {
      found.push_back(value);
    }
  }
  return found;
}

} // namespace

std::vector<ConfigDifference> compare_configs(
    const json& config,
    const json& other,
    bool any_depth) {
  Values ours, theirs;
  read_values(config, "", ours);
  read_values(other, "", theirs);
  std::vector<ConfigDifference> differences;
  for (const auto& [name, a] : ours) {
    const auto found = theirs.find(name);
    if (found == theirs.end()) {
      continue;
    }
    const Value& b = found->second;
    const std::string last = last_part(name);
    const bool meaning = gives_meaning(name, last);
    if ((any_depth && is_depth(last, a.value)) ||
        (meaning && (a.value.is_null() || b.value.is_null())) ||
        unified(last, a.value) == unified(last, b.value)) {
      continue;
    }
    differences.push_back(
        {a.key, a.value, b.value, meaning && !is_free(name, last, ours)});
  }
  const json absent(json::value_t::discarded);
  for (const Value& value : lacking(ours, theirs, any_depth)) {
    differences.push_back({value.key, value.value, absent, false});
  }
  for (const Value& value : lacking(theirs, ours, any_depth)) {
    differences.push_back({value.key, absent, value.value, false});
  }
  return differences;
}

} // namespace merganser
