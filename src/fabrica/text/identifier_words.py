"""Closed lists behind `text.identifiers`: common names, titles, eponyms and clinical words, streets, months."""

from __future__ import annotations

import functools
from importlib.resources import files


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


CAPITALS = "A-Z" + "".join(  # inside [...]: Latin, Greek and Cyrillic capitals
    chr(c) for c in (*range(0xC0, 0x180), *range(0x386, 0x3AC), *range(0x400, 0x530)) if chr(c).isupper()
)
GIVEN = _set(
    """
    james john robert michael william david richard joseph thomas charles christopher daniel matthew anthony mark donald
    steven paul andrew joshua kenneth kevin brian george timothy ronald edward jason jeffrey ryan jacob gary nicholas
    eric jonathan stephen larry justin scott brandon benjamin samuel gregory alexander patrick frank raymond jack dennis
    jerry tyler aaron jose adam nathan henry zachary douglas peter kyle noah ethan jeremy walter christian keith roger
    terry austin sean gerald carl harold dylan arthur lawrence jordan jesse bryan billy bruce gabriel joe logan alan
    juan albert willie elijah wayne randy vincent mason roy ralph bobby russell bradley philip eugene louis harry
    howard fred stanley leonard ernest martin phillip todd craig earl clarence chad travis glenn marvin dale norman
    mary patricia jennifer linda elizabeth barbara susan jessica sarah karen lisa nancy betty sandra margaret ashley
    kimberly emily donna michelle carol amanda melissa deborah stephanie dorothy rebecca sharon laura cynthia amy
    kathleen angela shirley brenda emma anna pamela nicole samantha katherine christine helen debra rachel carolyn janet
    maria catherine heather diane olivia julie joyce victoria ruth virginia lauren kelly christina joan evelyn judith
    andrea hannah megan cheryl jacqueline martha madison teresa gloria sara janice ann kathryn abigail sophia frances
    jean alice judy isabella julia grace amber denise danielle marilyn beverly charlotte natalie theresa diana brittany
    doris kayla alexis lori marie florence lucy edith agnes ellen phyllis gladys irene josephine norma wanda rosemary
    hans peter klaus wolfgang juergen jürgen uwe dieter manfred helmut gerhard heinz horst karl werner rainer bernd
    stefan frank andreas matthias thorsten torsten markus sven jens ralf dirk holger jan lukas felix maximilian jonas
    leon finn tobias sebastian florian philipp johannes friedrich wilhelm otto ernst hermann günter günther gunter
    ursula helga monika renate ingrid petra sabine brigitte gisela christa erika karin heike elke birgit gabriele
    claudia susanne martina silke anja katrin kathrin ute anke tanja sonja jutta hannelore gertrud hildegard ilse
    lieselotte waltraud anneliese lena lea mia leonie marlene johanna
    carlos luis miguel jorge pedro antonio francisco manuel javier fernando rafael alejandro roberto ricardo eduardo
    diego sergio raul pablo andres hector oscar mario guadalupe rosa carmen ana lucia elena isabel sofia gabriela
    pierre jacques michel françois francois philippe alain bernard marcel andré andre luc antoine hugo mathieu camille
    nathalie sylvie isabelle monique chantal giovanni giuseppe marco luca paolo francesca giulia chiara alessandro
    mohammed mohamed muhammad ahmed ali hassan hussein omar ibrahim youssef yusuf khalid fatima aisha layla mariam
    raj rajesh amit sanjay vijay sunil anil suresh ramesh deepak ravi arjun rahul priya anita sunita kavita neha pooja
    lakshmi meera anjali wei li ming jing hui yan xin lei hong mei jun feng hiroshi takashi kenji yuki akira haruto
    sakura yoko min-jun ji-woo seo-yeon nguyen ivan dmitri dmitry sergei sergey vladimir alexei olga natasha svetlana
    tatiana ekaterina piotr pawel tomasz andrzej agnieszka katarzyna malgorzata lars erik bjorn björn anders nils
    ingeborg astrid freya sven kwame kofi amara chidi ngozi oluwaseun abebe thabo liam aiden caleb owen wyatt hunter
    connor evan cole ian colin neil graham nigel trevor derek simon stuart hazel chloe zoe ava ella harper lily nora
    violet stella penelope eleanor audrey claire naomi ruby ivy sadie june pearl opal eva tina gina nina rita tammy
    tony steve mike bob bill jim tom dave dan joey matt nick chris alex ben sam greg jeff ken ron don ray ted gus
    emmanuel emmanuelle gilbert roland victor yves renee renée rene rené céline celine noémi noemi rémy remy léon leon
    édouard edouard théodore theodore marguerite jeanne zacharie frédéric frederic frederick aurélie aurelie benoît
    benoit
    christophe corinne denis dominique élise elise étienne etienne fabrice gérard gerard guillaume henri jérôme jerome
    josette laurent léa louise lucie madeleine marcelle marguerita martine maurice maxime nicolas noémie odette olivier
    pascal patrice paulette raymonde robert sébastien simone stéphane suzanne sylvain thierry valérie véronique vincent
    xavier yvonne agata aleksander aleksandra alicja beata bożena danuta dawid dorota edyta elżbieta ewa grażyna
    grzegorz halina henryk iwona izabela jacek jadwiga jakub janina janusz jarosław jerzy joanna józef justyna kamil
    karolina kazimierz krystyna krzysztof leszek lidia łukasz maciej magdalena małgorzata marcin marek mariusz marta
    mateusz michał mikołaj mirosław monika paweł rafał robert roman ryszard sławomir stanisław stefania sylwia szymon
    teresa urszula wanda wiesława wiktor wiktoria władysław wojciech zbigniew zofia zygmunt aarav aditi aditya akash
    alok amar ananya anand anjana anjum anupam aparna archana arun arvind asha ashok bharat bhavna chetan devi dinesh
    divya gaurav geeta girish gopal hari harish indira ishaan jaya jyoti kamala karan kiran krishna kumar lalita
    madhav mahesh manish manju manoj mohan mukesh nandini naresh narayan naveen nikhil nisha nitin pankaj parth prakash
    pranav prasad pratap preeti radha rakesh ranjit rashmi rekha ritu rohan rohit sachin sandeep sandhya sangeeta
    sanjana sarita satish seema shanti shankar sheela shiva shobha shreya shyam sneha sonia subhash sudha sudhir suman
    sumit suresh swati tara uma usha varun vidya vikram vimala vinay vinod vishal vivek yash abdul abdullah adel
    ahmad amina amir anwar bilal farah farid fatma habib hamza hanan huda idris imran ismail jamal jamila kamal karim
    khadija laila leila mahmoud malik mansour mariam mustafa nabil nadia naser noor omar osama rahim rania rashid
    saad sabah said salim salma samir samira sara selim sultan tariq wael yasmin youssef zahra zainab alfonso alfredo
    alicia amparo angel angeles armando arturo beatriz belen blanca carlota catalina cesar cristian cristina dolores
    emilio enrique ernesto esteban esperanza eugenia federico felipe felix gonzalo graciela gregorio guillermo gustavo
    ignacio ines inmaculada ismael iván jaime javiera jesus joaquin josefina julian julio leticia lorenzo lourdes
    marcelo margarita mariana marina marisol martín maría mateo mercedes milagros montserrat natalia nieves nuria
    octavio olga oswaldo paloma paola patricio paula pilar ramiro ramon raquel rodolfo rodrigo rocío rogelio salvador
    santiago silvia susana teodoro tomas trinidad valentina vanessa veronica vicente yolanda adelheid albrecht alfred
    alois annette anton antje arnold astrid axel barbel bärbel beate bernhard bettina bruno carla carsten christa
    christel christiane christoph cornelia detlef dorothea eberhard eckhard edeltraud elfriede elisabeth else
    erhard erich erna ernestine erwin eva evelin ewald ferdinand frieda friederike fritz georg gerda gerlinde gregor
    gudrun gustav hannes hannah harald hartmut hedwig heiko heiner heinrich hella hendrik henriette herbert hermine
    herta hilde holger hubert ida ines inge irma irmgard isolde jakob joachim jochen josef judith julian justus
    kerstin kirsten konrad kurt lina lothar lotte ludwig luise lutz magda manuela marianne marlies mathias max
    meike melanie mechthild michaela nadine niklas nina norbert olaf oliver oskar paul pia ralph regina reinhard
    reinhold rolf rosa rosemarie roswitha rudi rudolf ruth sandra sascha siegfried sigrid simone sophie svenja tanja
    theo theodor thea thilo timo ulf ulrich ulrike uta valentin veronika viktor viktoria volker walburg waltraud
    werner wilfried wilma winfried wolf yannick
    """
)
FAMILY = _set(
    """
    smith johnson williams brown jones garcia miller davis rodriguez martinez hernandez lopez gonzalez wilson anderson
    thomas taylor moore jackson martin lee perez thompson white harris sanchez clark ramirez lewis robinson walker young
    allen king wright scott torres nguyen hill flores green adams nelson baker hall rivera campbell mitchell carter
    roberts gomez phillips evans turner diaz parker cruz edwards collins reyes stewart morris morales murphy cook rogers
    gutierrez ortiz morgan cooper peterson bailey reed kelly howard ramos kim cox ward richardson watson brooks chavez
    wood james bennett gray mendoza ruiz hughes price alvarez castillo sanders patel myers long ross foster jimenez
    powell jenkins perry russell sullivan bell coleman butler henderson barnes gonzales fisher vasquez simmons romero
    jordan patterson alexander hamilton graham reynolds griffin wallace moreno west cole hayes bryant herrera gibson
    ellis tran medina aguilar stevens murray ford castro marshall owens harrison fernandez mcdonald woods washington
    kennedy wells vargas henry chen freeman webb tucker guzman burns crawford olson simpson porter hunter gordon mendez
    silva shaw snyder mason dixon munoz hunt hicks holmes palmer wagner black robertson boyd rose stone salazar fox
    warren mills meyer rice schmidt garza daniels ferguson nichols stephens soto weaver ryan gardner payne grant dunn
    kelley spencer hawkins arnold pierce hansen peters santos hart bradley knight elliott cunningham duncan armstrong
    hudson carroll lane riley andrews alvarado ray delgado berry perkins hoffman johnston matthews pena richards
    contreras willis carpenter lawrence sandoval guerrero george chapman rios estrada ortega watkins greene nunez
    wheeler valdez harper burke larson santiago maldonado morrison franklin carlson austin dominguez carr lawson jacobs
    obrien lynch singh vega bishop montgomery oliver jensen harvey williamson gilbert dean sims espinoza howell wong
    reid hanson le mccoy garrett burton fuller wang weber welch rojas lucas marquez fields park yang little banks
    padilla
    day walsh bowman schultz luna fowler mejia davidson acosta brewer may holland juarez newman pearson curtis cortez
    douglas schneider joseph barrett navarro figueroa keller avila wade molina stanley hopkins campos barnett bates
    chambers caldwell beck lambert miranda byrd craig ayala lowe frazier powers neal leonard gregory carrillo sutton
    fleming rhodes shelton schwartz norris jennings rivers obrien kowalski nowak wisniewski novak horvath ivanov petrov
    müller mueller fischer becker schulz schäfer schaefer koch bauer richter klein wolf schröder schroeder neumann
    schwarz zimmermann braun krüger krueger hofmann hartmann lange werner krause lehmann schmid schulze maier köhler
    koehler herrmann könig koenig walter mayer huber kaiser fuchs lang scholz möller moeller weiß weiss jung hahn
    vogel friedrich schubert winkler berger roth lorenz baumann franke albrecht schuster simon ludwig winter kraus
    böhm boehm sommer schumacher krämer kraemer vogt stein jäger jaeger otto sommer groß seidel heinrich brandt haas
    schreiber graf dietrich ziegler kuhn kühn pohl engel horn busch bergmann thomas voigt sauer arnold pfeiffer
    dubois durand leroy moreau laurent lefebvre michel bertrand roux fournier girard bonnet dupont rossi russo ferrari
    esposito bianchi romano colombo ricci marino greco bruno gallo conti costa silva santos oliveira souza pereira
    ferreira carvalho gomes almeida jansen devries vandenberg bakker visser smit dejong johansson andersson karlsson
    nilsson eriksson larsson olsson hansen johansen olsen larsen andersen pedersen nielsen christensen kumar sharma
    gupta shah khan ahmed ali hussain reddy rao iyer mehta desai chowdhury das banerjee mukherjee zhang liu zhao huang
    zhou wu xu sun zhu lin guo gao luo cheng chan cheung ho tanaka suzuki sato watanabe yamamoto nakamura kobayashi
    choi kang cho yoon jang lim hong phan vu vo dang bui okafor adeyemi mensah mwangi cohen levy friedman goldberg
    rosenberg katz goldstein kaplan greenberg shapiro oconnor oneill mccarthy mcintyre mackenzie macdonald fitzgerald
    gallagher doherty byrne quinn doyle
    singhal chauhan raja chaudhari chaudhary chahal swamy varty singhania agarwal aggarwal ahluwalia anand arora bajaj
    bansal basu bhatia bhatt bose chadha chandra chopra dutta garg ghosh goel iyengar jain jha joshi kapoor kaur khanna
    khurana kohli kulkarni lal malhotra malik mathur menon mishra mittal mohan nair narayan pandey pandit pillai prasad
    rai rajan raman rana rangan rathore sahni saxena sen sethi sinha sood srinivasan subramaniam thakur tiwari trivedi
    varma verma vyas yadav adamczyk baran dudek dąbrowski grabowski jabłoński jankowski kaczmarek kamiński kozłowski
    krawczyk król lewandowski maciejewski majewski malinowski mazur michalski nowakowski olszewski ostrowski pawlak
    pawłowski piotrowski rutkowski sadowski sikora sobczak stępień szewczyk szymański tomaszewski walczak wieczorek
    wiśniewski witkowski wojcik wójcik woźniak wróbel wróblewski zając zalewski zawadzki zieliński arnaud aubert barbier
    benoit blanc boucher bourgeois boyer brun caron charpentier chevalier clement colin david denis dufour dumas dumont
    dupuis duval fabre faure fontaine francois gaillard garnier gauthier gautier gerard giraud guerin guillaume henry
    hubert jacquet joly lacroix lambert leclerc leclercq lecomte legrand lemaire lemoine leroux louis lucas marchand
    masson mathieu mercier meunier meyer moulin muller nicolas noel olivier perrin petit philippe picard pierre renard
    renaud rey richard riviere robin roche rodriguez roger rolland roussel rousseau roy schmitt vasseur vidal vincent
    abbott acevedo adkins aldridge allison alston atkins atkinson ayers baldwin ball ballard banks barber barker barlow
    barr barron barry bartlett barton bass bauer baxter bean beard beasley becerra benitez benson benton bernal best
    blackburn blackwell blair blake blanchard blankenship blevins bolton bond booker boone booth bowen bowers bradford
    brady branch brandt bray brennan bridges briggs britt brock bruce bryan buchanan buck buckley bullock burch burgess
    burnett burris bush cabrera calderon callahan camacho cameron cano cantu cardenas carey cervantes charles chase
    cherry christian christensen church clarke clay clayton clements cochran cohen cole colon combs compton conley
    conner conrad conway cooke cooley cordova correa crane crosby cross cuevas cummings dale dalton daugherty davenport
    dejesus deleon dempsey dennis dickerson dickson dillon dodson dominguez donaldson donovan dorsey doyle drake dudley
    duffy duke duran dyer eaton english erickson esparza estes faulkner felix ferrell finley fitzpatrick fletcher floyd
    flynn foley forbes francis franco frank frost frye fuentes gaines galindo gallegos galloway galvan gates gentry
    glass glenn glover golden good goodman goodwin gould graves gross hale haley hammond hancock hanna hardin harding
    hardy harmon harrell hatfield heath hebert hendricks hendrix hensley herman herring hess hickman hobbs hodge hodges
    hood hoover horne horton house houston howe huber huff huffman hull humphrey hurley hurst ingram jacobson jarvis
    jefferson johns joyce kane keith kemp kerr kirby kirk klein kline knapp knox kramer lam lamb landry lara leach leal
    leblanc lester levine levy li lindsey livingston lloyd logan lozano lucero lynn lyons macias mack madden maddox
    mahoney mann manning marks marsh massey mathews mathis maxwell mayer mayo mays mcbride mccall mccann mcclain
    mcclure mcconnell mccormick mccullough mcdaniel mcdowell mcfarland mcgee mcguire mcintosh mckay mckee mckenzie
    mckinney mclaughlin mclean mcmahon mcmillan mcpherson meadows melendez melton mercado mercer merritt middleton
    miles monroe montes montoya moody moon mooney moran morin morrow morse morton moses moss moyer mueller mullen
    mullins murillo nash nielsen noble nolan oconnell odom odonnell oneal osborn osborne pace pacheco palacios parks
    parrish parsons patrick patton pennington petersen pham phelps pittman pitts ponce poole pope potter potts pratt
    preston price proctor pruitt pugh quintana ramsey randall randolph rangel rasmussen raymond reeves reilly reyna
    richardson richmond riddle rivas roach robbins robles rocha rollins romero rosales rosario rosas rowe rowland rubio
    rush russo salas salgado salinas sampson savage schaefer schmitt schroeder sellers serrano sexton shaffer shah
    shannon sharp shea sheppard sherman shields short sierra simon singleton skinner sloan small solis solomon sosa
    spears stafford stark stein stephenson stevenson stokes stout strickland strong stuart suarez summers swanson
    sweeney sweet sykes tanner tapia tate terrell terry thornton trejo trevino trujillo tyler underwood valencia
    valentine valenzuela vance vang vasquez vaughan vaughn velasquez velazquez velez villa villanueva villarreal
    villegas wagner wall walter walters walton ware warner waters watts weeks weiss whitaker whitehead whitney wiggins
    wilcox wiley wilkerson wilkins wilkinson williamson winters wise wolf wolfe woodard woodward wright wyatt yates
    york yoder zamora zavala zuniga zimmerman
    """
)
# Words that follow or are eponyms: "Parkinson disease", "Foley catheter". Alone they are no person.
EPONYMS = _set(
    """
    parkinson crohn hodgkin alzheimer foley down swan ganz swan-ganz hashimoto addison cushing graves turner marfan
    ehlers
    danlos barrett bell babinski romberg murphy homans kernig brudzinski mcburney rovsing glasgow apgar wilson wilms
    ewing kaposi burkitt paget dupuytren charcot marie tooth huntington tourette wernicke korsakoff broca raynaud
    sjogren sjögren sjogren's behcet behçet takayasu kawasaki wegener churg strauss goodpasture alport berger conn
    meniere
    ménière kussmaul cheyne stokes wolff white fallot eisenmenger ebstein brugada prinzmetal bochdalek morgagni
    schatzki zenker mallory weiss billroth whipple roux hartmann nissen roux-en-y kocher pfannenstiel mcroberts mayo
    hickman
    broviac penrose jackson pratt jackson-pratt kerley hampton westermark chiari arnold dandy walker arnold-chiari budd
    pott pott's colles smith barton bennett galeazzi monteggia salter harris salter-harris legg perthes osgood schlatter
    osgood-schlatter scheuermann schmorl baker hoffa lisfranc jones weber garden gustilo schatzker bosniak fuhrman
    gleason breslow clark lachman mcmurray tinel phalen finkelstein spurling trendelenburg thompson hoffmann hawkins
    kennedy neer ortolani barlow snellen weber rinne dix hallpike epley fontan blalock taussig norwood glenn
    coombs gram wright giemsa papanicolaou pap schiller ziehl neelsen doppler hounsfield seldinger trousseau chvostek
    virchow troisier courvoisier cullen grey turner gray castell sister mary joseph lhermitte hutchinson argyll
    robertson horner holmes adie marcus gunn duane brown guillain barre barré guillain-barre guillain-barré lambert
    eaton
    lambert-eaton miller fisher creutzfeldt jakob creutzfeldt-jakob pick lewy friedreich wallenberg
    epstein barr epstein-barr lyme norwalk coxsackie zika ebola marburg lassa hansen klebsiella escherichia pasteurella
    salmonella shigella bartonella rickettsia brucella listeria neisseria gardner gilbert crigler najjar dubin rotor
    lynch peutz jeghers gardner's cowden von hippel lindau recklinghausen sturge albers sipple wermer zollinger ellison
    zollinger-ellison cohn osler rendu osler-weber-rendu roth janeway duke duke's dukes child pugh child-pugh ranson
    apache framingham braden norton morse wells geneva killip nyha ann arbor valsalva heimlich kegel kerr kehr
    leriche monckeberg mönckeberg buerger virchow's baumann stokes-adams adams fitz hugh curtis tietze hill sachs
    hill-sachs bankart perthes kienbock kienböck freiberg sever panner sinding larsen baastrup modic meckel
    hirschsprung mullerian müllerian wolffian bartholin skene naboth nabothian fallopian eustachian sylvian rolandic
    dupuytren's peyronie fournier ludwig vincent ringer hartmann's yankauer
    bosworth maisonneuve segond haglund morton morton's charcot-marie-tooth
    """
)
EPONYM_NOUNS = (
    "disease|syndrome|sign|signs|catheter|cath|score|scale|test|tests|fracture|palsy|lymphoma|tumou?r|cyst|anemia|"
    "anaemia|murmur|classification|class|criteria|lines?|procedure|operation|maneuver|manoeuvre|position|reflex|"
    "phenomenon|thyroiditis|contracture|stain|smear|sarcoma|chorea|dementia|encephalopathy|nodes?|nodules?|drain|"
    "tube|pouch|bod(?:y|ies)|effect|esophagus|oesophagus|diverticulum|hernia|lesion|ulcer|gangrene|artery|arteries|"
    "vein|duct|ligament|fascia|space|point|angle|grade|stage|type|scan|index|coma|units?|imaging|ultrasound|flow|"
    "waveforms?|views?|method|technique|forceps|retractor|clamp|needle|wire|pump|solution|incision|anastomosis|repair|"
    "virus|fever|deformity|malformation|anomaly|block|breathing|respirations?|agar|medium|erkrankung|krankheit|syndrom|"
    "zeichen|katheter|fraktur|lymphom|drainage|valve|shunt|ring|web|rings|mark|area|aphasia|attack|"
    "triad|pentad|law|curve|line|frame|lung|spots?|gland|glands|pad|device|arthropathy|neuroma|disorder|lactate|"
    "tetralogy|stenosis|thrombosis|stones?|sampling|pins?|wires?|plates?|screws?|nails?|rods?|stent|graft|balloon|"
    "prosthesis|blade|bag|mask|tray|knife|loop|suture|splint|brace|cast|boot|collar|traction|approach|exercises?|"
    "maneuvers|crystals|granules|antigen|antibody|assay|equation|formula|ratio|number|staging|grading|system|reaction"
)
TITLES = (
    r"Dr|Drs|Doctor|DR|Doktor|Prof|Professor|PROF|Mr|Mrs|Ms|Miss|MR|MRS|MS|Herr|Herrn|Frau|Fr|Hr|Sr|Sra|Señor|Señora|"
    r"Mme|Mlle|Nurse|Sister|Schwester|Pfleger|Rev|Father|Rabbi|Judge|Officer|Sgt|Capt|Sir|Dame|OA|OÄ|Chefarzt|Oberarzt|"
    r"Oberärztin|Assistenzarzt|Stationsarzt|PD|Dipl\.-Ing|Hon|Attorney|Coach|Pastor"
)
CUES = (  # a colon or words after which a person's name stands
    r"(?:patient(?:'s)?|pt\.?|full|first|last|given|family|maiden|middle|mother'?s|father'?s|guardian(?:'s)?|spouse|"
    r"contact|physician(?:'s)?|provider(?:'s)?|doctor(?:'s)?|referring|attending|radiologist|surgeon|author|resident|"
    r"fellow|technologist|technician|sonographer|nurse|nok|next of kin|emergency contact|insured|subscriber|"
    r"requesting|ordering|consulting|interpreting|performing|reading|assistant|anesthesiologist|pathologist|pcp|"
    r"cardiologist|therapist|operator|observer|reviewer|verifier|transcriptionist|witness|employer)"
    r"(?:[ \t]+(?:name|physician|provider|doctor|md|clinician|radiologist|by|surgeon))?"
)
ACTS = (
    r"(?:electronically[ \t]+)?(?:signed|dictated|reviewed|approved|verified|transcribed|interpreted|read|reported|"
    r"authenticated|finalized|finalised|performed|referred|requested|ordered|attested|co-?signed|typed|entered|"
    r"communicated|discussed|accompanied|notified|countersigned|authorized|prepared|validiert|unterschrieben|"
    r"unterzeichnet|diktiert|befundet|erstellt|freigegeben|überwiesen)(?:[ \t]+(?:and|und)[ \t]+\w+)?"
    r"(?:[ \t]+electronically)?[ \t]+(?:by|with|to|von|durch)"
)
MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar jänner", "february feb februar", "march mar märz maerz mrz", "april apr",
            "may mai", "june jun juni", "july jul juli", "august aug", "september sep sept",
            "october oct oktober okt", "november nov", "december dec dezember dez",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
STREETS = (
    r"Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Circle|Cir|Place|Pl|Square|Sq|Terrace|Ter|"
    r"Way|Parkway|Pkwy|Highway|Hwy|Trail|Trl|Crescent|Close|Grove|Alley|Row|Walk|Mews|Turnpike|Pike|Loop|Run|Path"
)
STREETS_DE = (
    r"straße|strasse|str\.|weg|gasse|allee|platz|ring|damm|ufer|steig|chaussee|pfad|berg|graben|markt|hof|wall|stieg"
)
STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|"
    "PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC"
)
STATE_NAMES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|"
    "Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|"
    "Montana|Nebraska|Nevada|Ohio|Oklahoma|Oregon|Pennsylvania|Tennessee|Texas|Utah|Vermont|Virginia|Washington|"
    "Wisconsin|Wyoming"
)
PLACES = (  # after a capitalised name: an institution
    r"Hospitals?|Clinics?|Medical[ ]Cent(?:er|re)|Health(?:care)?(?:[ ](?:System|Cent(?:er|re)|Services))?|Infirmary|"
    r"Hospice|Sanatorium|Nursing[ ]Home|Rehabilitation[ ]Cent(?:er|re)|Surgery[ ]Cent(?:er|re)|Imaging[ ]Cent(?:er|re)|"
    r"Cancer[ ]Cent(?:er|re)|Institute|University|College|Universitätsklinikum|Klinikum|Krankenhaus|Universitätsklinik|"
    r"Radiology[ ](?:Associates|Group)|Family[ ](?:Practice|Medicine)|Pharmacy|Elementary|High[ ]School|Church|"
    r"Manor|Medical[ ]Group|Associates|Laborator(?:y|ies)"
)
CLINICAL = _set(  # capitalised words of reports that name no person
    """
    impression findings indication comparison technique history exam examination report date time patient name
    doctor nurse study series image images chest abdomen pelvis head neck spine heart lung lungs liver kidney left
    right bilateral upper lower middle lobe view views portable frontal lateral the this that there these those no not
    and or but if of in on at to for with without by from as is are was were be been has have had he she it they we his
    her their its our your my him them who whom which what when where how why yes ok okay please thank thanks hello hi
    dear sincerely regards monday tuesday wednesday thursday friday saturday sunday january february march april may
    june july august september october november december spring summer autumn winter christmas easter thanksgiving
    american european african asian caucasian hispanic latino english german spanish french chinese japanese indian
    mexican russian italian jewish muslim catholic christian british canadian
    siemens philips toshiba canon hitachi samsung fujifilm fuji carestream agfa hologic varian elekta medtronic stryker
    ge healthcare general electric magnetom achieva ingenia signa discovery optima revolution lightspeed somatom
    sensation definition aquilion brilliance ingenuity skyra avanto aera prisma verio trio vida sonata symphony artis
    logiq vivid epiq voluson acuson sequoia affiniti mindray kodak aloka esaote zeiss heidelberg olympus pentax
    boston scientific abbott edwards zimmer depuy synthes smith nephew ethicon vicryl prolene monocryl ethibond
    dermabond
    betadine chloraprep marcaine xylocaine lidocaine tylenol advil motrin aleve lasix lopressor coumadin lovenox plavix
    lipitor zocor crestor norvasc zestril prinivil diovan cozaar glucophage lantus humalog novolog synthroid prilosec
    nexium protonix zantac pepcid zofran reglan phenergan benadryl claritin zyrtec allegra flonase albuterol advair
    spiriva singulair prednisone zithromax levaquin cipro keflex augmentin rocephin vancomycin zosyn flagyl bactrim
    diflucan valtrex ativan xanax valium klonopin ambien zoloft prozac paxil lexapro celexa wellbutrin effexor cymbalta
    abilify seroquel risperdal zyprexa lithium depakote dilantin keppra tegretol neurontin lyrica topamax lamictal
    percocet vicodin norco oxycontin ultram toradol celebrex humira enbrel remicade omnipaque isovue visipaque
    gadavist magnevist multihance gadolinium optiray lovaza viagra cialis flomax proscar colace miralax senokot
    medicare medicaid internet google facebook word excel
    oh so um uh hm hmm ah hey nope yep yeah yup nah aw wow sure great good well right alright fine gotcha don doesn didn
    won isn aren wasn weren couldn wouldn shouldn haven hasn hadn can how're what's
    herz lunge leber niere befund beurteilung anamnese diagnose therapie verlauf klinik patientin rechts links thorax
    abdomen becken schädel wirbelsäule untersuchung röntgen sinusrhythmus der die das ein eine und oder mit ohne bei von
    zu im am kein keine keinen nach vor seit
    """
) | _set(  # of the world, larger than what identifies: countries, states, peoples; bacteria; more brands and words
    """
    afghanistan albania algeria argentina armenia australia austria bangladesh belgium bolivia bosnia brazil bulgaria
    cambodia cameroon canada chile china colombia congo croatia cuba cyprus czechia denmark ecuador egypt england
    eritrea estonia ethiopia europe finland france germany ghana greece greenland guatemala haiti honduras hungary
    iceland india indonesia iran iraq ireland israel italy jamaica japan kenya korea kosovo kuwait laos latvia lebanon
    liberia libya lithuania luxembourg malaysia mali malta mexico moldova mongolia morocco mozambique myanmar namibia
    nepal netherlands nicaragua niger nigeria norway oman pakistan panama paraguay peru philippines poland portugal
    qatar romania russia rwanda scotland senegal serbia singapore slovakia slovenia somalia spain sudan sweden
    switzerland syria taiwan tanzania thailand tunisia turkey uganda ukraine uruguay uzbekistan venezuela vietnam wales
    yemen zambia zimbabwe america africa asia deutschland österreich schweiz zealand hong kong united kingdom states
    north south east west northern southern eastern western pacific atlantic mediterranean
    alabama alaska arizona arkansas california colorado connecticut delaware florida hawaii idaho illinois indiana iowa
    kansas kentucky louisiana maine maryland massachusetts michigan minnesota mississippi missouri montana nebraska
    nevada ohio oklahoma oregon pennsylvania tennessee texas utah vermont wisconsin wyoming carolina dakota
    vietnamese korean arabic portuguese polish turkish greek dutch swedish danish norwegian finnish hungarian czech
    romanian bulgarian ukrainian serbian croatian persian hindi urdu bengali punjabi tamil filipino thai somali hmong
    haitian cuban irish scottish welsh swiss austrian belgian egyptian iranian iraqi syrian lebanese israeli palestinian
    pakistani nepali brazilian colombian peruvian chilean muslim hindu buddhist protestant orthodox mormon sikh
    pseudomonas staphylococcus streptococcus escherichia klebsiella enterobacter enterococcus acinetobacter haemophilus
    neisseria candida aspergillus clostridium clostridioides bacteroides proteus serratia salmonella shigella
    campylobacter helicobacter legionella mycoplasma chlamydia mycobacterium listeria borrelia treponema toxoplasma
    cryptococcus pneumocystis histoplasma nocardia actinomyces plasmodium giardia
    norflex cetaphil sinemet botox chantix macrobid remeron mylanta tums adderall lidoderm benicar taxol accutane
    gatorade ensure pedialyte keytruda opdivo avastin herceptin rituxan xarelto eliquis pradaxa brilinta entresto
    jardiance farxiga januvia metformin ozempic trulicity victoza invokana levemir tresiba toujeo symbicort dulera
    breo anoro trelegy combivent atrovent pulmicort flovent nasonex rhinocort astelin mucinex robitussin sudafed
    imodium lomotil pepto zelnorm linzess amitiza creon botulinum dilaudid demerol roxicodone suboxone subutex narcan
    restoril lunesta sonata halcion buspar desyrel pamelor elavil tofranil strattera ritalin concerta vyvanse focalin
    namenda aricept exelon requip mirapex azilect imitrex maxalt zomig relpax ajovy aimovig emgality fosamax boniva
    actonel prolia forteo evista premarin provera depo mirena nuvaring plaquenil rheumatrex arava azulfidine imuran
    cellcept prograf neoral rapamune decadron medrol solumedrol kenalog epogen procrit neupogen neulasta bumex demadex
    aldactone inspra toprol coreg tenormin bystric procardia cardizem calan cordarone multaq tikosyn rythmol tambocor
    lanoxin nitrostat imdur ranexa catapres hytrin cardura avodart ditropan detrol vesicare myrbetriq pyridium
    bremsstrahlung radiopaedia presently unwitnessed hyperlucent underinflated levocurvature noncontributory
    """
)


@functools.cache
def vocabulary() -> frozenset[str]:
    """Lower-case words that were seen written small in clinical prose, captions and articles (`clinical_words.txt`), in
    examination questions, dialogues and documentation (`common_words.txt`), and `CLINICAL`."""
    words = (files(__package__).joinpath(f"{kind}_words.txt").read_text("utf-8") for kind in ("clinical", "common"))
    return frozenset(" ".join(words).split()) | CLINICAL
