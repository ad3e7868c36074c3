"""Words that everybody writes: meeting one of them twice says nothing.

`STOP` are the little words of English: neighbours are counted as if they were not there. `COMMON`
adds frequent words. `ANSWERS` are those that arguments have as values and that name nothing (`yes`, `high`).
"""

from __future__ import annotations

from typing import Final

STOP: Final = frozenset(
    """
    a an and any are as at be been but by can could did do does for from had has have he her here him
    his how i if in into is it its just me more most my no nor not of off on only or other our out over
    own she should so some such than that the their them then there these they this those to too under
    until up us very was we were what when where which while who whom whose why will with would you your
    """.split()  # noqa: SIM905 -- a page of words
)
COMMON: Final = STOP | frozenset(
    """
    able about above accept access account across act action active activity actual add added address
    after again against age ago agree ahead air all allow almost alone along already also although
    always am among amount another answer anyone anything appear apply appointment april area around
    arrive art article ask asked attach attached attachment attention august author available avoid away
    back bad balance bank base based basic because become before begin behind being believe below best
    better between beyond big bill birthday black blue board body book both bottom box break bring brown
    budget build building business buy calendar call called came cancel cannot car card care carry case
    cash cause cent center central certain chance change channel chapter charge chat check child choice
    choose city class clean clear click client close code cold collect color come comment common
    community company complete computer condition confirm consider contact contain content continue
    control copy correct cost count country couple course cover create created credit cross current
    currently customer cut daily data database date day days deal dear death debit decade december
    decide decision deep default define delete deliver delivery demand department describe description
    design detail details develop development device difference different difficult dinner direct
    direction directory discount discuss display doctor document documents dollar done door double down
    download draft draw drive drop due during each early earth east easy eat edge edit education effect
    effort eight either element eleven else email emails empty end energy enjoy enough enter entire
    entry environment equal error especially euro even evening event events ever every everyone
    everything example excellent except exit expect expense experience explain extra face fact fail fall
    false family far fast father february fee feedback feel few field fifth file files fill final
    finally find fine finish fire first five fix floor follow following food foot force form format
    former forward found four free friday friend friends full fun function future game gave general get
    gift girl give given glad go goal going gone good got government great green group grow guest guide
    had half hand happen happy hard head health hear heart heat hello help hi high history hold holiday
    home hope hot hotel hour hours house however huge human hundred idea identify image important
    improve inbox include including income increase indeed index individual info information input
    inside instead interest internal internet invite invoice issue item items january job join july june
    keep key kind king kitchen know known label lady land language large last late later latest law lead
    learn least leave left legal less let letter level library life light like likely limit limited line
    link list listen little live load local location log login long look lose loss lot love low lower
    lunch mail main major make man manage management manager many map march mark market match material
    matter maximum may maybe mean medium meet meeting meetings member members memory mention menu
    message messages method middle might million mind mine minimum minute minutes miss mixed mode model
    modern moment monday money month monthly months morning mother mountain move movie much music must
    myself name named names nature near necessary need needs never new news next nice night nine ninth
    nobody none normal north note notes nothing notice november now null number numbers object october
    offer office official often oh ok okay old once one ones online open opened option options orange
    order orders organization original others otherwise outside overall owner page paid paper paragraph
    parent park part participants partner party pass password past path pay payment people per percent
    perhaps period permission person personal phone photo picture piece place plan plans plant play
    please point policy poor popular position possible post power prepare present press pretty previous
    price prices print priority private probably problem process product production products profile
    program project public pull purchase purpose push put quality quarter question questions quick
    quickly quite random range rate rather read reader ready real really reason receive received recent
    recently record recurring red reference refund regards region related release remember reminder
    remove rent repeat replace reply report request require required reservation reserve reset resource
    response rest restaurant result results return review right rights river road role room rule run
    safe said sale same sample saturday save say schedule scheduled school science score search season
    second secret section secure security see seem seen select self sell send sender sent september
    series serious serve service services session set seven several shall share shared sheet shop short
    show side sign simple simply since single sir sister sit site situation six size sleep slow small
    social software something sometimes son song soon sorry sort sound source south space speak special
    specific spend spring square staff stage stand standard star start started state statement station
    status stay step still stock stop store story street strong student study stuff style subject
    success suggest sum summary summer sun sunday support sure system table take taken talk task tasks
    tax teacher team technology telephone tell ten term terms test text thank thanks therefore thing
    things think third thousand three through thursday thus ticket time times title to-do today together
    told tomorrow tonight took tool top topic total toward town track trade train transaction
    transactions transfer travel tree trip true trust try tuesday turn twelve twenty two type understand
    unit united unless unread unseen untrusted update updated upon upper urgent use used useful user
    users usual usually vacation value values various verify version via video view visit voice wait
    walk wall want war warm watch water way web website wednesday week weekend weekly weeks weight
    welcome well went west whatever whether white whole wide window winter wish within without woman
    word words work worker working works world worth write written wrong year years yellow yes yesterday
    yet young yours yourself zero zone
    """.split()  # noqa: SIM905 -- a page of words
)
ANSWERS: Final = frozenset(
    """
    accept accepted active all any april august cancel cancelled closed confirmed debit december default
    deny done false february five four friday high inactive january july june low march may me medium
    monday no none november null october off ok okay on one open pending read ready saturday self
    september six sunday ten three thursday today tomorrow true tuesday two unknown unread update user
    wednesday write yes yesterday you
    """.split()  # noqa: SIM905 -- a page of words
)
