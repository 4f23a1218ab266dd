"""How `dreambooth_cli/rare_tokens.txt` was made: CLIP's rarest short words, without those that have a meaning.

    python -m tests.benchmarks.rare_tokens bpe_simple_vocab_16e6.txt.gz            # each candidate, rank, verdict
    python -m tests.benchmarks.rare_tokens bpe_simple_vocab_16e6.txt.gz --table    # the table itself

The vocabulary is the one in OpenAI's CLIP repository. A candidate is one whole-word token of three or four plain
letters in the rarest tenth. Each was read by a person; the ones listed here have a meaning of their own. What is left is
mostly the ends of longer words, and groups of letters that stand for many things and so for none.
"""

import argparse
import gzip
import re
from pathlib import Path

RAREST = 0.9  # a token is rare where its rank is in the last tenth of the vocabulary
MERGES = 49_152 - 256 - 2  # CLIP uses this many of the file's list
HEADER = "# Rare single words of CLIP's vocabulary, rarest first; made by tests/benchmarks/rare_tokens.py"

DROPPED = {
    "an English word, slang, or an ending with a meaning": """
        dits sown shld gote kilt blob whoo revs fck rune nips soca sura toid jap mako emit stix clos hep tich arum dif
        cep cava dats abit teer yawn fawn wags kts vot bios kohl ewe cous keel yuck cmdr ufos rofl mede spon guyz yel
        nigh mth crit appt szn ohn sill grl hap byes kea urd guin perm rags psst buss cals fad sleg cutt quot litt
        aroo oily resh jig dura null peed wilt esq rego anew gup puli slav thaw hok kkkk moly padi ibis wea slit stfu
        roti brt klan mend trow moot hemi geno slum noo bant lel stea gums lob eek maia hock macs meen muh ddos hoos
        lyk bcoz neet purr baes lobe foes awn aloo owo izz reco axes naf nuh appe upp mutt inus glan shud usky arvo
        tog uff lice rass chit acct tbd bobs lug agro capo yey homs iiii lect milf peds muck tait grom kap uhhh
        lewd stis sog huff ferg hurd adog faze mace tups bide snug boop dema bung tats hoof hooo bind calc jett tmw
        pkg bdg exe sqm aua
    """,
    "a name of people, places, gods or brands": """
        olis loeb fler ulf xiao asar dori tux veli juli onex mohd dru buda opi wray peth reem yoh gera miki rith uwe
        minh cudi hiko eoin wol rolf abia elba nery reba vala titi mert erra muna lili exas tobi dyce gani miro agne
        atum reys lexa siam hela uzzi aroa taku oxi vini zaki avel shma elis aten vedi dita elio shai suma yui cees
        dany weho rame eira kylo kaka javi emir yuma anis mita maja fery lito niro pika minn nees roni moby evie slan
        rino toda drin kant lata akon apha alai zeke adee dros raju pree suni sela pell rui wamy azu trav gila bosa
        clio miho gura oled bez vada viso tej rosy cair ebo ruk arif dayo brea indi doka zeb dav aira alda urie gaby
        amex frid boni olu tomi hawa bena luce geri mik goma vica kasa hamm zola neel lias cav hime beal kiri jaye lbj
        ysl joao gann zedd diem lien ihop sosa tama tali rael lieb zani zain leno niti hino anka utz karo rcb kosh yao
        deva sven tora kab dene lys riba goro worx shep navi daan enos acco toma akos gad mek itel hosa igbo kanu azzy
        hmv ofi kuro cnet neko gorg ffxv stec aew zawa dels hom rimo rein laa bsgo asot loos niv sams
    """,
    "an abbreviation, a team, a station or a tag with a meaning": """
        hta httr rcn adl omd bnha cae pafc dbz rps pgs pbc tvc gsp muc dca rmb wafc wbo wral ucn ccu ibc afs wiv ssh
        pln mds mgt nrg mss batt bpd mwf ccd cwgc rsc aon acu mlas fbs scd coyi nwsl stg cov conv dds doa bsf cna iru
        niu mib sks mgs asr cpec ohwx hamr bsp nmwx nlwx vaw irgc dprk bnp lpg fcu utm pfa kprc pte gsc fis hgtv snf
        bgc ncds spp rti clg apec ytd antv omf brs pkk wwdc pcm wwx chk cusa pesa eccc wawx tls wti oga hsv blr npt
        ncbd cdo itar jnu aoa wftv tdp ttip aig dwp twa gmbh smg aos nyk cbp ftse mtr tbr kgs wcpo bsa swfl fnc emt
        awg bse sbu olt dts motd adr cfd evp yql ibu fgo cns efcc edp asim ecg bbuk aub copd tbi mlg nrc hpv cpac adb
        tdi khz slp fdi oti oic mci vig bhk rufc acdc svc scp tsb uhc sba smw mbps cern isro sli nhc qtr mnd iec ygk
        rsl btn apd afd skc psv icn ntv wib dsp msi dmx trib inec cws lhp csn waz waj alco
    """,
    "a word of another language": """
        lun quoi sohn pik deux pli nem wir edad suru eet maar enei apro enig kwa fara buon gare zas vaca nasi chor buka
        ushi nek assa otas uit weg tien fim vara vena anjo kert bene sabi deja abre fik sne hele nian beli leur neue
        vill shui chik pung fide satu vide unde volo dres yaki muy gata onde yom gato avut tema cek cau tym
    """,
}


def read_merges(path: Path) -> list[str]:
    """The 48,894 merges that CLIP uses of its gzipped list, commonest first, each as `left right`."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    return lines[1 : MERGES + 1]


def read_vocabulary(path: Path) -> list[str]:
    """CLIP's 49,408 tokens in the order of their ids, which is their rank: commonest first."""
    letters = byte_letters()
    merged = ["".join(merge.split()) for merge in read_merges(path)]
    return [*letters, *(letter + "</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]


def byte_letters() -> list[str]:
    """The 256 characters that stand for the 256 bytes in byte-level BPE: the printable ones first, then stand-ins."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]


def candidates(vocabulary: list[str]) -> dict[str, int]:
    """Word -> rank of each whole-word token of three or four plain letters in the rarest tenth, rarest first."""
    ranks = range(len(vocabulary) - 1, int(RAREST * len(vocabulary)) - 1, -1)
    return {
        vocabulary[rank].removesuffix("</w>"): rank
        for rank in ranks
        if re.fullmatch(r"[a-z]{3,4}</w>", vocabulary[rank])
    }


def verdicts() -> dict[str, str]:
    """Dropped word -> why it was dropped."""
    return {word: reason for reason, words in DROPPED.items() for word in words.split()}


def table(vocabulary: list[str]) -> list[str]:
    """The words that are kept, rarest first."""
    dropped = verdicts()
    return [word for word in candidates(vocabulary) if word not in dropped]


def main() -> None:
    """Print the candidates, or the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--table", action="store_true", help="print the table of the package")
    arguments = parser.parse_args()
    vocabulary = read_vocabulary(arguments.path)
    if arguments.table:
        print("\n".join([HEADER, *table(vocabulary)]))
        return
    dropped = verdicts()
    for word, rank in candidates(vocabulary).items():
        print(f"{rank:6}  {word:4}  {dropped.get(word, 'kept')}")


if __name__ == "__main__":
    main()
