# ruff: noqa: E501 - a cell and its rendering stand on one line
"""README.zh-CN.md and README.md: what is generated, and how the rest is kept in step with the English page.

Tables that are generated in README.md are generated here too, cell by cell; a cell without a translation below stays English. The file
tree and the tables of measurements are copied. `python -m tests.test_readme` writes them.
"""

import operator
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest

# English cell of a generated table -> Chinese
CELLS = {
    # heads
    "name": "名称",
    "model": "模型",
    "good for": "适合",
    "pixels": "像素",
    "recommended GPU memory": "建议显存",
    "download": "下载",
    "licence": "许可证",
    "repository": "仓库",
    "card": "显卡",
    "what is trained": "训练的部分",
    "means": "手段",
    "needs, predicted": "预计需要",
    "flag": "参数",
    "takes": "取值",
    "default": "默认值",
    "what it does": "作用",
    "code": "退出码",
    "kind": "类型",
    "when": "含义",
    "event": "事件",
    "fields": "字段",
    # base models
    "the first try: steady, close to the paper": "初次尝试：稳定，接近论文",
    "closest to the paper's own model": "与论文所用的模型最接近",
    "larger pictures, better quality": "更大的图片，质量更高",
    "the best quality and detail": "最高的质量和最佳的细节",
    "the newest, on cards from 8 GB; draws in 4 steps with its twin": "最新；8 GB 显存起；配合其孪生模型 4 步出图",
    "photographs, on cards from 8 GB": "照片风格；8 GB 显存起",
    "seeing it work: drawn scenes of 64 px, no GPU, no model to download": "看它如何工作：64 像素的手绘场景，不需要 GPU，不需要下载模型",
    "16 GB or more": "16 GB 以上",
    "no GPU": "不需要 GPU",
    "none": "无",
    "comes with dreambooth": "随 dreambooth 安装",
    # what fits
    "UNet": "UNet",
    "UNet and text encoder": "UNet 和文本编码器",
    "LoRA of the UNet": "UNet 的 LoRA",
    "LoRA of the transformer": "Transformer 的 LoRA",
    "8-bit Adam": "8 位 Adam",
    "gradient checkpointing": "梯度检查点",
    "base in fp8": "fp8 基础模型",
    "text encoder on the CPU": "文本编码器在 CPU 上",
    "rows in turn": "逐行计算",
    "bf16 weights rounded stochastically": "随机舍入的 bf16 权重",
    "steps inside backward (no clipping)": "反向传播中更新（不裁剪）",
    "optimizer state off the card": "优化器状态移出显存",
    "base in 4 bits": "4 位基础模型",
    "none needed": "不需要",
    "does not fit": "放不下",
    # what a flag takes
    "a path": "路径",
    "a word": "文字",
    "a number": "数",
    "a number or auto": "数或 auto",
    "a whole number": "整数",
    "a whole number or auto": "整数或 auto",
    "yes": "是",
    "no": "否",
    # settings
    "Folder with 3 to 5 photos of the subject.": "放有 3 到 5 张主题照片的文件夹。",
    'What the subject is, in general: "a dog".': '主题属于哪一类："a dog"。',
    "Rare word for the subject; auto: chosen from the base model's vocabulary.": "代表主题的稀有词；auto：从基础模型的词表中选。",
    "Base model; a name from `dreambooth models`, a hub repository, a diffusers folder or a .safetensors file.": "基础模型：`dreambooth models` 中的名称、hub 仓库、diffusers 文件夹或 .safetensors 文件。",
    "Training size in pixels; auto: the base model's own.": "训练图片的边长（像素）；auto：基础模型自己的尺寸。",
    "Which square of a photo is kept; auto: the one around the subject; pad: all of it, with a border; none: the photo's own shape.": "保留照片的哪个正方形；auto：主题所在处；pad：整张照片加边框；none：保持原有形状。",
    "Refuse photos that have a problem, instead of only saying so (exit code 3).": "照片有问题时拒绝（退出码 3）。",
    "Train all layers, or a LoRA; auto: all layers if they fit in memory.": "训练所有层，或 LoRA；auto：只要显存够就训练所有层。",
    "Train the text encoder too; auto: if it fits, for Stable Diffusion 1 and 2 only.": "同时训练文本编码器；auto：显存够就训练，只限 Stable Diffusion 1 和 2。",
    "Number of training steps.": "训练步数（优化器步数）。",
    "Photos per batch.": "每批的照片数。",
    "Class images per batch; auto: as many as photos.": "每批的类别图片数；auto：与照片一样多。",
    "Batches per training step.": "一个优化器步包含的批数。",
    "How far a step moves the weights; auto: by base; for Stable Diffusion 1e-4 for LoRA, 5e-6 for full, 2e-6 with the text encoder.": "每一步改动权重的幅度（学习率）；auto：取决于基础模型；Stable Diffusion 为 LoRA 1e-4，full 5e-6，连同文本编码器 2e-6。",
    "Learning rate of the text encoder; auto: half of --learning-rate.": "文本编码器自己的学习率；auto：--learning-rate 的一半。",
    "Step after which the text encoder is no longer trained; 0: trained to the end; auto: with method full, after 40% of the steps.": "从哪一步起不再训练文本编码器；0：一直训练；auto：全量微调时在 40% 的步数之后。",
    "How the learning rate changes over the steps.": "学习率随步数如何变化。",
    "Steps over which the learning rate rises from 0.": "学习率从 0 升起所用的步数。",
    "AdamW, or AdamW with 8-bit state (needs the 8bit extra); auto: 8-bit only if memory is short.": "AdamW，或状态为 8 位的 AdamW（需要 8bit 附加包）；auto：只在显存不够时用 8 位。",
    "AdamW's weight decay.": "AdamW 的权重衰减。",
    "Clip gradients to this norm; 0: no clipping.": "把梯度裁剪到这个范数；0：不裁剪。",
    "Number format of the forward pass; auto: bf16 or fp16 where the hardware is good at it, else fp32.": "前向计算的数值格式；auto：硬件擅长时用 bf16 或 fp16，否则 fp32。",
    "Compute activations twice: less memory, slower steps; auto: only if memory is short.": "激活值计算两次：省显存，但更慢；auto：只在显存不够时使用。",
    "Rank of the LoRA (a higher rank makes a larger file); auto: 16, or 32 for klein and Z-Image.": "LoRA 的秩，文件大小随之增长；auto：16，klein 和 Z-Image 为 32。",
    "Layers that get a LoRA: attention only, or all, which adds feed-forward layers and convolutions.": "LoRA 加在哪些层旁：只在注意力层（attention），或所有层（all），包括前馈层和卷积。",
    "Alpha of the LoRA, which is scaled by alpha / rank; auto: the rank.": "LoRA 的 alpha，按 alpha / rank 缩放；auto：等于秩。",
    "Keep an exponential moving average (EMA) of the weights and save that.": "保留权重的指数移动平均，并保存它。",
    "How slowly the EMA follows the weights, from 0 to 1.": "平均值跟随得多慢，0 到 1。",
    "Min-SNR weighting of the loss with this gamma; 0: off.": "以此 gamma 对损失做 Min-SNR 加权；0：关闭。",
    "What keeps the class: class-images, base (a LoRA is compared with it) or none; auto: base for klein, Z-Image, else class-images.": "用什么保留类别：class-images（类别图片）、base（LoRA 与其基础模型对照）、none（无）；auto：class-images，klein 和 Z-Image 用 base。",
    "With --prior base: every how many steps the LoRA is compared with its base.": "--prior base 时：每隔多少步对照一次基础模型。",
    "Weight of prior preservation in the loss (lambda); 0: off.": "先验保留在损失中的权重（lambda）；0：关闭先验保留。",
    "Number of class images; they keep the class as it was; 0: none.": "要生成的类别图片数；它们让类别保持原样；0：不生成。",
    "Folder with class images of your own; only those still missing are drawn.": "放有您自己的类别图片的文件夹；只生成缺少的。",
    "Denoising steps for each class image.": "每张类别图片的去噪步数。",
    "Guidance scale for the class images; auto: 7.5, or 4 for klein and Z-Image.": "类别图片的引导系数；auto：7.5，klein 和 Z-Image 为 4。",
    "Sentences to train the subject in: own (your prompt), or varied (now and then another, naming the place that the photo shows).": "用哪些句子训练主题：您自己的（own），或不时换成别的句子、并说出照片里的地点（varied）。",
    "How often the prompt leaves out the photo's caption or place, from 0 to 1.": "您自己的句子不带照片说明或地点出现的比例，0 到 1。",
    "With --frames varied: every how many class images one is set in a place.": "--frames varied 时：每隔几张类别图片有一张画在某个地点。",
    "Also mirror the photos; not for text or asymmetric things.": "同时使用左右翻转的照片；有文字或不对称的主题请勿使用。",
    "Seed of the run; all its random numbers follow from it.": "训练的随机种子；所有随机数都由它得出。",
    "Steps between checkpoints; 0: only at the end.": "两个检查点之间的步数；0：只在结束时保存。",
    "Also save a checkpoint after this many minutes, for slow steps; 0: off.": "步子慢时，也每隔这么多分钟保存一次；0：不按时间保存。",
    "How many of the newest checkpoints are kept during the run.": "保留几个最新的检查点。",
    "Try every phase once before the run, so that trouble shows early; runs under 50 steps skip it.": "训练前把每个阶段先走一遍，问题早发现；不到 50 步的训练不走。",
    "A prompt of your own for the samples.": "样图使用您自己的提示词。",
    "Denoising steps for each sample.": "每张样图的去噪步数。",
    "Number format of the saved weights.": "保存权重的数值格式。",
    "What the picture should not show.": "图片中不应出现的内容。",
    "How many pictures to draw.": "生成几张图片。",
    "Seed of the first picture, picture i uses seed + i; auto: a new one, which is shown.": "第一张图片的种子，第 i 张使用 种子 + i；auto：新取一个，并告诉您。",
    "Denoising steps for each picture; auto: 50, or 30 for Z-Image.": "每张图片的去噪步数；auto：50，Z-Image 为 30。",
    "How strictly the prompt is followed; auto: 7.5, or 5 for SDXL and pocket, 4 for klein and Z-Image (Z-Image's starts at 0, not 1).": "多严格地遵循提示词（引导系数）；auto：7.5，SDXL 和 pocket 为 5，klein 和 Z-Image 为 4（Z-Image 从 0 算起，而非从 1）。",
    "Width in pixels; auto: as trained.": "宽度（像素）；auto：与训练时相同。",
    "Height in pixels; auto: as trained.": "高度（像素）；auto：与训练时相同。",
    "Noise scheduler; auto: the model's own.": "噪声调度器；auto：模型自己的。",
    "Pictures drawn at once.": "一次同时画几张。",
    "Train a distilled base anyway, although it then no longer draws in a few steps.": "即使基础模型是蒸馏成几步出图的也训练它，它会因此失去这一特性。",
    "Steps whose weights are kept after the run, to draw with: the last, the last and the best, or all.": "训练后保留哪些步的权重用来画图：只留最后一步（last）、另加最好的一步（best），或全部（all）。",
    "Who judges the steps at the end: none, or auto (DINO and CLIP, fetched once, 0.7 GB); pocket has a judge of its own.": "结束时由谁评判各步：none（不评判），或 auto（DINO 和 CLIP，只下载一次，0.7 GB）；pocket 有自己的评判者。",
    "Steps between sample pictures; auto: four rounds in the run; 0: none.": "两次样图之间的步数；auto：一次训练共四次；0：不画样图。",
    "Draw in a few steps with the distilled twin of the LoRA's base (klein has one).": "用 LoRA 基础模型的蒸馏孪生模型，几步就画出：klein 有这样一个。",
    "An export that another program would read differently; it is kept under another name.": "别的程序读出的导出文件与原意不符；它以另一个名称放在旁边。",
    "A picture of a fixed prompt and seed, drawn before, during or at the end of training.": "固定提示词和种子的图片，在训练前、途中或结束时画出。",
    "The samples wait for the end of the run, because on the way they would take more than a tenth of it; sent once.": "途中画样图会占去训练时间的十分之一以上，所以留到结束时再画；只说一次。",
    "The photos' loss at noise that is the same each time, with the instance prompt (`loss`) and with the class prompt (`class_loss`).": "照片在每次都相同的噪声下的损失：用主题的提示词（`loss`）和类别提示词（`class_loss`）。",
    "What the run has made of its base. `verdict`: learned, barely or copies; `of_class`: kept or drifting; `figures` give the reasons.": "训练让基础模型变成了什么。`verdict`：learned（学会了）、barely（几乎没有）或 copies（照抄照片）；`of_class`：kept（类别保持）或 drifting（漂移）；`figures` 是依据。",
    "A model was exported and read back. No pixel value (0 to 1) of its test picture is off by more than `largest_difference`.": "模型已导出并重新读过。试画的图片中没有一个像素值（0 到 1）相差超过 `largest_difference`。",
    "Pictures drawn with the weights of `step` were judged. `subject`, `prompt`, `copied`: 0 to 1; `nearest`: the photo being copied.": "评判了用第 `step` 步的权重画的图片。`subject`、`prompt`、`copied`：0 到 1；`nearest`：被照抄的照片。",
    "Which step of the run is the `best`, and why, in words; `path` has the figures for all of them.": "哪一步最好（`best`），以及为什么；`path` 中有全部数字。",
    "The run is done. `seconds`: how long this call took; `bytes`: its size on disk; `report`: its page; `command`: draws with it.": "训练完成。`seconds`：这次调用用了多少秒；`bytes`：占用的磁盘空间；`report`：它的页面；`command`：用它画图的命令。",
    # exit codes
    "Done.": "完成。",
    "A failure with no kind of its own.": "没有单独类型的失败。",
    "Two libraries whose versions don't work together; the message says which command fixes it.": "两个库的版本不相配；会给出修复的命令。",
    "Wrong usage: an option, a value or a prompt.": "用法错误：参数、值或提示词。",
    "Bad photos: none that can be used.": "照片不好：没有一张可用。",
    "A project that is missing, broken or in use by another run.": "项目不存在、已损坏，或正被另一次训练使用。",
    "The run does not fit in the memory of the GPU, or of the machine.": "显存或内存放不下。",
    "A base model or a LoRA that can't be fetched or read: gone, gated, offline, broken, or a pickle.": "基础模型或 LoRA 无法取得或读取：已消失、需授权、离线、损坏，或是 pickle 文件。",
    "A full disk, a file that can't be written, or damaged files.": "磁盘已满、文件无法写入，或文件损坏。",
    "Training went wrong: the loss is not finite, or no weight changed.": "训练出错：损失不再是有限数，或没有任何权重改变。",
    "Interrupted by SIGHUP, as when the terminal or its connection closes; the message says what was saved.": "被 SIGHUP 中断（终端或连接断开）；会说明保存了什么。",
    "Interrupted by Ctrl-C; the message says what was saved.": "被 Ctrl-C 中断；会说明保存了什么。",
    "Interrupted by SIGTERM; the message says what was saved.": "被 SIGTERM 中断；会说明保存了什么。",
    # events
    "Always the first line. `schema` goes up when a field is renamed, removed or given another type.": "第一行，无论命令结果如何。字段改名、删除或换类型时，`schema` 加一。",
    "A longer piece of work begins: `total` units of it, None if that is not known.": "一段较长的工作开始：共 `total` 个单位；未知时为 None。",
    "Something that the user should know about, though the work goes on.": "用户应当知道的事，工作仍在继续。",
    "A line of information.": "一行说明。",
    "One more file of the photo folder has been read; findings follow when all have been.": "又读了一个照片文件；全部读完后再说发现了什么。",
    "A file of the photo folder. `status`: kept, warned, skipped or refused. `findings` (`kind`, `value`, `words`) only inform.": "照片文件夹中的一个文件。`status`：kept、warned、skipped 或 refused。`findings`（`kind`、`value`、`words`）供参考。",
    "The photos are turned upright, cropped and saved. `findings` are about the set (`same_place`, `few_views`), `verdict` sums it up.": "照片已旋正、裁剪并写出。`findings` 是整组照片的发现（`same_place`、`few_views`），`verdict` 是一行评语。",
    "A project was made or its settings were written.": "建立了项目，或写入了它的设置。",
    "How the run will be done, what it needs and why. `plan` is what `plan.json` holds.": "训练将如何进行、需要多少资源、为什么。`plan` 与 `plan.json` 内容相同。",
    "A run begins (`step` 0) or continues from `step`.": "一次训练开始（`step` 为 0），或从 `step` 继续。",
    "How far a download has come. `file` is the one being fetched; `done` and `total` are bytes of the whole download.": "下载的进度。`file` 是正在下载的文件，`done` 和 `total` 是整个下载的字节数。",
    "A base model is on disk.": "基础模型已在磁盘上。",
    "One more class image is in the cache.": "缓存中又多了一张类别图片。",
    "One more photo or class image has been encoded to latents.": "又有一张照片或类别图片编码成了潜变量。",
    "Every phase was tried once, in `seconds`. Judging by that, the run takes `expected` seconds and a step `step_seconds`.": "每个阶段都走了一遍，用了 `seconds` 秒。按实测，训练需要 `expected` 秒，一步 `step_seconds` 秒；",
    "One training step. `memory_gb` is the most GPU memory the process has used so far, None without a GPU.": "一个优化器步。`memory_gb` 是进程到此为止的显存峰值；没有 GPU 时为 None。",
    "Steps suddenly take three times as long as before, and keep doing so; sent once. `usual` is what they took before, in seconds.": "步子突然持续变慢到原来的三倍；只说一次。`usual` 是以前一步的秒数。",
    "The run can continue from here.": "训练可以从这里继续。",
    "The fine-tuned model is on disk.": "微调后的模型已在磁盘上。",
    "A model is in a repository on the hub, at this address.": "模型已在 Hub 上的一个仓库里，地址在此。",
    "A picture that `generate` drew.": "`generate` 画的一张图片。",
    "All pictures of one call on a single sheet.": "一次调用的所有图片合在一张大图上。",
    "A page for the browser that shows all of it.": "一个网页，可在浏览器里查看全部内容。",
    "The command that a user would type for the next part.": "接下来这一步用户会输入的命令。",
    "The demo's page: the photos, and the pictures before and after training.": "演示的页面：照片，训练前和训练后的图片。",
    "The command failed; the last line.": "命令失败；最后一行。",
}

# English heading -> Chinese, without the leading marks
HEADINGS = {
    "Quickstart": "快速开始",
    "Install": "安装",
    "Base models": "基础模型",
    "Photos": "照片",
    "Train": "训练",
    "Generate": "生成",
    "Use it elsewhere": "在别处使用",
    "What happens when": "出了事会怎样",
    "Scripts": "脚本",
    "Where things lie": "东西放在哪里",
    "How it works": "原理",
    "How fast it is": "有多快",
    "Settings": "设置",
    "The repository": "仓库",
}
TAKEN_OVER = ("faults",)  # tables of measurements, between markers: the same on both pages


def translated(table: str) -> str:
    """A generated table in Chinese, as far as cells, and the parts of a list of means, have a translation."""
    return "\n".join("|".join(_cell(cell) for cell in re.split(r"(?<!\\)\|", line)) for line in table.splitlines())


def _cell(cell: str) -> str:
    words = cell.strip()
    if words in CELLS:
        return f" {CELLS[words]} "
    parts = words.split(", ")
    if len(parts) > 1 and all(part in CELLS for part in parts):
        return f" {'、'.join(CELLS[part] for part in parts)} "
    if (choices := re.fullmatch(r"([\w-]+(?:, [\w-]+)*) or ([\w-]+)", words)) is not None:
        return f" {choices[1].replace(', ', '、')} 或 {choices[2]} "
    return cell


def blocks_of(text: str) -> list[str]:
    """The fenced blocks of a page, including the fences."""
    return re.findall(r"^```\w*\n.*?^```$", text, flags=re.DOTALL | re.MULTILINE)


def between(text: str, name: str) -> str:
    """The text between two markers."""
    return text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


def taken_over(chinese: str, english: str) -> str:
    """The Chinese page with the file tree and the tables of measurements copied from the English one."""
    for name in TAKEN_OVER:
        before, after = chinese.split(f"<!-- {name} -->")[0], chinese.split(f"<!-- /{name} -->")[1]
        chinese = f"{before}<!-- {name} -->{between(english, name)}<!-- /{name} -->{after}"
    ours, theirs = (next(block for block in blocks_of(page) if block.startswith("```text\ndreambooth_cli/")) for page in (chinese, english))
    return chinese.replace(ours, theirs)


def differences(chinese: str, english: str) -> Iterator[str]:
    """How the two pages differ, one line each: in headings, in blocks of commands (without comments), and in the shape of tables and each
    cell that has code or a figure."""
    yield from _unlike("heading", _headings(english), _headings(chinese), same=lambda a, b: b in (a, heading_in_chinese(a)))
    yield from _unlike("line of a command", _commands(english), _commands(chinese))
    ours, theirs = _tables(english), _tables(chinese)
    for number, (one, other) in enumerate(zip_longest(ours, theirs, fillvalue=["nothing"]), start=1):
        found = list(_unlike(f"table {number} ({one[0]}), row", one, other, same=_same_row))
        yield from found
        if found and len(ours) != len(theirs):
            yield f"README.md has {len(ours)} tables, README.zh-CN.md {len(theirs)}"
            return


def heading_in_chinese(heading: str) -> str:
    """A heading in Chinese; one without a translation stays as it is."""
    marks, _, words = heading.partition(" ")
    return f"{marks} {HEADINGS.get(words, words)}"


def _headings(page: str) -> list[str]:
    return re.findall(r"^#+ .*$", _without_blocks(page), flags=re.MULTILINE)


def _commands(page: str) -> list[str]:
    """The lines of all blocks except the file tree, without comments; a clause after two spaces counts as a comment."""
    blocks = [block for block in blocks_of(page) if not block.startswith("```text")]
    lines = [re.sub(r"(^|\s+)# .*|\s+$", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def _tables(page: str) -> list[list[str]]:
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", _without_blocks(page), flags=re.MULTILINE)]


def _without_blocks(page: str) -> str:
    return re.sub(r"^```\w*\n.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def _same_row(one: str, other: str) -> bool:
    """Whether two rows have the same number of cells, with the same code and figures in each."""
    cells, others = (re.split(r"(?<!\\)\|", row) for row in (one, other))
    return len(cells) == len(others) and all(
        sorted(re.findall(r"`[^`]+`", a)) == sorted(re.findall(r"`[^`]+`", b)) for a, b in zip(cells, others, strict=True)
    )


def _unlike(what: str, ours: list[str], theirs: list[str], same: Callable[[str, str], bool] = operator.eq) -> Iterator[str]:
    for number in range(max(len(ours), len(theirs))):
        one, other = (lines[number] if number < len(lines) else "nothing" for lines in (ours, theirs))
        if not (number < min(len(ours), len(theirs)) and same(one, other)):
            yield f"{what} {number + 1}: README.md has {one!r}, README.zh-CN.md {other!r}"
            return

